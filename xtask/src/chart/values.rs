//! `values.yaml` read line by line: a key stands on a line of its own, what it means in the comment before it.

use std::fmt::Write as _;

/// A key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// From the top, with dots between.
    pub(super) path: String,
    /// Empty when further keys stand below it.
    pub(super) default: String,
    /// Empty when it has none.
    pub(super) comment: String,
}

/// All keys, in order.
pub(super) fn read(text: &str) -> Vec<Value> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    let mut above: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        if let Some((key, default)) = content.split_once(':') {
            let indent = line.len() - content.len();
            above.retain(|(column, _)| *column < indent);
            above.push((indent, key));
            let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
            found.push(Value {
                path: path.join("."),
                default: default.trim().to_owned(),
                comment: comment.join(" "),
            });
        }
        comment.clear();
    }
    found
}

/// The table of the README: a row for each key that is described.
pub(super) fn table(text: &str) -> String {
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    for Value {
        path,
        default,
        comment,
    } in read(text)
    {
        if comment.is_empty() {
            continue;
        }
        let default = if default.is_empty() {
            default
        } else {
            format!("`{default}`")
        };
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{path}` | {default} | {comment} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_own_comment_and_the_path_of_those_above_it() {
        let text = "# Of the file.\n\n# A room.\n# With a door.\nroom:\n  # Its door.\n  door: open\n  wall: {}\nend: 1\n";
        let value = |path: &str, default: &str, comment: &str| Value {
            path: path.to_owned(),
            default: default.to_owned(),
            comment: comment.to_owned(),
        };
        let wanted = [
            value("room", "", "A room. With a door."),
            value("room.door", "open", "Its door."),
            value("room.wall", "{}", ""),
            value("end", "1", ""),
        ];
        assert_eq!(read(text), wanted);
        assert_eq!(
            table(text).lines().nth(3),
            Some("| `room.door` | `open` | Its door. |")
        );
    }
}
