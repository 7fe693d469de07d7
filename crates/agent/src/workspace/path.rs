//! A path inside the workspace, as a model may name one: relative, plain, short.

/// Longest path that is taken.
const MAX_BYTES: usize = 1024;
/// Longest name of one file or folder (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// Deepest nesting that is walked.
const MAX_DEPTH: usize = 32;

/// Why a path is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPath {
    #[error("give a path relative to the workspace, like notes/fractions.md")]
    Absolute,
    #[error("a path may not go up with ..")]
    Upwards,
    #[error("the path is too long or too deep")]
    TooLong,
    #[error("a path may not contain control characters")]
    ControlCharacter,
}

/// A path that cannot name anything outside: no `..`, no leading slash. Empty is the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelativePath(Vec<String>);

impl RelativePath {
    /// Takes what a model wrote.
    pub(crate) fn parse(written: &str) -> Result<Self, InvalidPath> {
        if written.len() > MAX_BYTES {
            return Err(InvalidPath::TooLong);
        }
        if written.chars().any(char::is_control) {
            return Err(InvalidPath::ControlCharacter);
        }
        // Containers always have the workspace at this path, and models like to write it.
        let inside = match written.strip_prefix("/workspace") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => written,
        };
        if inside.starts_with('/') {
            return Err(InvalidPath::Absolute);
        }
        let mut components = Vec::new();
        for component in inside.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(InvalidPath::Upwards),
                name if name.len() > MAX_NAME_BYTES => return Err(InvalidPath::TooLong),
                name => components.push(name.to_owned()),
            }
        }
        if components.len() > MAX_DEPTH {
            return Err(InvalidPath::TooLong);
        }
        Ok(Self(components))
    }

    /// The names from the root down.
    pub(crate) fn components(&self) -> &[String] {
        &self.0
    }

    /// The last name and the folders above it; nothing for the root.
    pub(crate) fn split_name(&self) -> Option<(&str, &[String])> {
        self.0
            .split_last()
            .map(|(name, folders)| (name.as_str(), folders))
    }

    /// The same with one more name, which came from listing a folder.
    pub(crate) fn join(&self, name: &str) -> Self {
        let mut components = self.0.clone();
        components.push(name.to_owned());
        Self(components)
    }

    /// Whether it is, or is in, the folder `top` of the root.
    pub(crate) fn is_under(&self, top: &str) -> bool {
        self.0.first().is_some_and(|first| first == top)
    }
}

impl std::fmt::Display for RelativePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            f.write_str(".")
        } else {
            f.write_str(&self.0.join("/"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_keeps_its_names_and_loses_its_dots() {
        let path = RelativePath::parse("./notes//maths/./fractions.md").unwrap();
        assert_eq!(path.to_string(), "notes/maths/fractions.md");
        assert_eq!(RelativePath::parse("").unwrap().to_string(), ".");
        let absolute = RelativePath::parse("/workspace/notes/a.md").unwrap();
        assert_eq!(absolute.to_string(), "notes/a.md");
    }

    #[test]
    fn what_could_leave_the_workspace_is_refused() {
        for (written, why) in [
            ("/etc/passwd", InvalidPath::Absolute),
            ("/workspaces/x", InvalidPath::Absolute),
            ("/workspace//../etc", InvalidPath::Upwards),
            ("notes/../../x", InvalidPath::Upwards),
            ("a\nb", InvalidPath::ControlCharacter),
            ("a\0b", InvalidPath::ControlCharacter),
        ] {
            assert_eq!(RelativePath::parse(written), Err(why), "{written:?}");
        }
        let deep = "d/".repeat(MAX_DEPTH + 1);
        assert_eq!(RelativePath::parse(&deep), Err(InvalidPath::TooLong));
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        assert_eq!(RelativePath::parse(&long), Err(InvalidPath::TooLong));
    }
}
