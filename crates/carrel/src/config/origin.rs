//! Where a value comes from, and the variables by which every scalar can be set: `limits.messagesPerMinute` is
//! `CARREL_LIMITS_MESSAGES_PER_MINUTE`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::load::Error;

/// Variables that are flags of the command line or belong to agents and tools, not paths of the file.
const OTHERS: [&str; 9] = [
    "CARREL_SERVER",
    "CARREL_TOKEN_FILE",
    "CARREL_DATA_DIR",
    "CARREL_CONFIG",
    "CARREL_BIN",
    "CARREL_IMAGE",
    "CARREL_REQUIRE",
    "CARREL_SEED",
    "CARREL_LOG",
];
/// Prefixes of the same.
const OTHER_PREFIXES: [&str; 2] = ["CARREL_TEST_", "CARREL_BENCH_"];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, and the line in it.
    File(PathBuf, u64),
    /// A variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Sets scalars from variables whose names begin with `CARREL_`.
pub(super) fn overlay_environment(
    config: &mut Value,
    variables: impl Iterator<Item = (String, String)>,
    origins: &mut BTreeMap<String, Origin>,
) -> Result<(), Error> {
    let mut known = BTreeMap::new();
    scalars("", config, &mut known);
    for (name, text) in variables {
        let other = OTHERS.contains(&name.as_str())
            || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !name.starts_with("CARREL_") || other {
            continue;
        }
        let Some(path) = known.get(&name) else {
            let nearest = known.keys().max_by(|a, b| {
                strsim::jaro_winkler(&name, a).total_cmp(&strsim::jaro_winkler(&name, b))
            });
            let what = format!(
                "no such setting; did you mean {}?",
                nearest.map_or("another", String::as_str)
            );
            return Err(Error::Environment {
                variable: name,
                what,
            });
        };
        let place = path
            .split('.')
            .try_fold(&mut *config, |value, key| value.get_mut(key));
        let Some(place) = place else { continue };
        *place = match place {
            Value::String(_) => Value::String(text),
            _ => serde_yaml::from_str(&text).map_err(|_| Error::Environment {
                variable: name.clone(),
                what: format!(
                    "'{}' cannot be used here",
                    text.chars().take(40).collect::<String>()
                ),
            })?,
        };
        origins.insert(path.clone(), Origin::Variable(name));
    }
    Ok(())
}

/// Every scalar's path by the variable that sets it.
fn scalars(prefix: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                scalars(&path, value, found);
            }
        }
        Value::Array(_) => {}
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(variable_of(prefix), prefix.to_owned());
        }
    }
}

fn variable_of(path: &str) -> String {
    let mut name = String::from("CARREL_");
    for letter in path.chars() {
        match letter {
            '.' => name.push('_'),
            upper if upper.is_ascii_uppercase() => {
                name.push('_');
                name.push(upper);
            }
            lower => name.push(lower.to_ascii_uppercase()),
        }
    }
    name
}
