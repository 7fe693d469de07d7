//! Reads a file or a folder of YAML, and the environment over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Config;
use super::documents::{self, ClassDocument, Document, LearnerDocument};
use super::origin::{Origin, overlay_environment};

/// Why the configuration cannot be used. Each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: {what}")]
    Invalid { path: PathBuf, what: String },
    #[error("{variable}: {what}")]
    Environment { variable: String, what: String },
    #[error("{field} {must}")]
    Bound {
        field: &'static str,
        must: &'static str,
    },
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) classes: Vec<ClassDocument>,
    pub(crate) learners: Vec<LearnerDocument>,
    /// Path of each value that is not the default, and where it comes from.
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// Reads `path` (a file, or the `.yaml` and `.yml` files of a folder; none: defaults), then the variables.
pub(crate) fn load(
    path: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Error> {
    let mut config = serde_json::to_value(Config::default()).unwrap_or_default();
    let (mut classes, mut learners) = (Vec::new(), Vec::new());
    let mut origins = BTreeMap::new();
    for file in files(path)? {
        let text = std::fs::read_to_string(&file).map_err(|source| Error::Read {
            path: file.clone(),
            source,
        })?;
        let invalid = |what: String| Error::Invalid {
            path: file.clone(),
            what,
        };
        // A list of learners may be long, and the file is the operator's own: no bound but memory.
        let unbounded = serde_yaml::options! { budget: None };
        let values: Vec<Value> = serde_yaml::from_multiple_with_options(&text, unbounded)
            .map_err(|error| invalid(error.to_string()))?;
        for value in values {
            if value.is_null() {
                continue;
            }
            if value.get("apiVersion").is_some() {
                match documents::read(value).map_err(|what| invalid(with_nearest(&what)))? {
                    Document::Class(class) => classes.push(*class),
                    Document::Learner(learner) => learners.push(learner),
                }
            } else {
                // Checked alone first, so that an error names this file.
                serde_json::from_value::<Config>(value.clone())
                    .map_err(|error| invalid(with_nearest(&error.to_string())))?;
                note_origins("", &value, &file, &mut origins);
                merge(&mut config, value);
            }
        }
    }
    overlay_environment(&mut config, variables, &mut origins)?;
    let config: Config = serde_json::from_value(config).map_err(|error| Error::Invalid {
        path: path.map(Path::to_path_buf).unwrap_or_default(),
        what: with_nearest(&error.to_string()),
    })?;
    check(&config)?;
    Ok(Loaded {
        config,
        classes,
        learners,
        origins,
    })
}

/// The files that [`load`] reads, in its order.
pub(crate) fn files(path: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let read = |source| Error::Read {
        path: path.to_path_buf(),
        source,
    };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Objects are merged key by key; everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn note_origins(prefix: &str, value: &Value, file: &Path, origins: &mut BTreeMap<String, Origin>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                note_origins(&path, value, file, origins);
            }
        }
        _ => {
            origins.insert(prefix.to_owned(), Origin::File(file.to_path_buf()));
        }
    }
}

/// Adds the nearest known key to serde's message about an unknown one.
pub(super) fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown field"), quoted.next()) else {
        return message.to_owned();
    };
    let known: Vec<&str> = quoted.collect();
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(unknown, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness > 0.6 => {
            format!("'{unknown}' is not known; did you mean '{known}'?")
        }
        _ => format!("'{unknown}' is not known; known are {}", known.join(", ")),
    }
}

fn check(config: &Config) -> Result<(), Error> {
    let bound = |holds: bool, field, must| {
        if holds {
            Ok(())
        } else {
            Err(Error::Bound { field, must })
        }
    };
    bound(
        config.store.url.starts_with("sqlite:"),
        "store.url",
        "must begin with 'sqlite:'",
    )?;
    bound(
        config.objects.url.starts_with("file:"),
        "objects.url",
        "must begin with 'file:'",
    )?;
    bound(
        carrel_gateway::TrustedProxies::parse(&config.gateway.trusted_proxies).is_some(),
        "gateway.trustedProxies",
        "must be addresses or networks, as in 10.0.0.0/8",
    )?;
    bound(
        config.fleet.max_live > 0,
        "fleet.maxLive",
        "must be at least 1",
    )?;
    bound(
        config.fleet.starts_per_second > 0,
        "fleet.startsPerSecond",
        "must be at least 1",
    )?;
    bound(
        config.limits.messages_per_minute > 0,
        "limits.messagesPerMinute",
        "must be at least 1",
    )?;
    let routes_name_models = config
        .routes
        .values()
        .flatten()
        .all(|target| target.model.contains('/'));
    bound(
        routes_name_models,
        "routes",
        "must name each model as 'provider/model'",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a temporary folder takes files");
        path
    }

    #[test]
    fn a_folder_of_documents_is_read_whole_and_variables_win() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(
            dir.path(),
            "carrel.yaml",
            "fleet: {maxLive: 7}\nlimits: {messagesPerMinute: 9}\n",
        );
        write(
            dir.path(),
            "school.yaml",
            "apiVersion: carrel.dev/v1alpha1\nkind: LearnerClass\nmetadata: {name: free}\nspec: {idle: {minSeconds: 5}}\n---\napiVersion: carrel.dev/v1alpha1\nkind: Learner\nmetadata: {name: ada}\nspec: {className: free}\n",
        );
        let variables = [(
            "CARREL_LIMITS_MESSAGES_PER_MINUTE".to_owned(),
            "11".to_owned(),
        )]
        .into_iter();
        let loaded = load(Some(dir.path()), variables).expect("valid");
        assert_eq!(loaded.config.fleet.max_live, 7);
        assert_eq!(loaded.config.limits.messages_per_minute, 11);
        assert_eq!(loaded.classes[0].spec.idle.min_seconds, 5);
        assert_eq!(loaded.learners[0].id.as_str(), "ada");
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_known_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = write(dir.path(), "carrel.yaml", "fleet: {maxLife: 7}\n");
        let error = load(Some(&path), std::iter::empty())
            .expect_err("unknown key")
            .to_string();
        assert!(
            error.contains("'maxLife' is not known; did you mean 'maxLive'?"),
            "{error}"
        );
    }

    #[test]
    fn a_variable_that_names_nothing_is_refused() {
        let variables = [("CARREL_FLEET_MAX_LIFE".to_owned(), "3".to_owned())].into_iter();
        let error = load(None, variables)
            .expect_err("unknown variable")
            .to_string();
        assert!(error.contains("CARREL_FLEET_MAX_LIVE"), "{error}");
    }
}
