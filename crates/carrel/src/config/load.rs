//! Reads a file or a folder of YAML, and the environment over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Config;
use super::documents::{self, ClassDocument, Document, LearnerDocument};
use super::located::{Fault, Node, typed};
use super::objects::ObjectsAt;
use super::origin::{Origin, overlay_environment};
use super::store::StoreAt;

/// Nobody waits longer for a role to end.
const MOST_DRAIN_SECONDS: u32 = 300;

/// Why the configuration cannot be used. Each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// `place` is a file with the line, where there is one.
    #[error("{place}: {what}")]
    Invalid { place: String, what: String },
    #[error("{variable}: {what}")]
    Environment { variable: String, what: String },
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
    let sources: Result<Vec<_>, _> = files(path)?
        .into_iter()
        .map(|path| match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(Error::Read { path, source }),
        })
        .collect();
    read(sources?, variables)
}

/// Reads texts with the names that they have for people, then the variables.
pub(crate) fn read(
    sources: Vec<(PathBuf, String)>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Error> {
    let mut config = serde_json::to_value(Config::default()).unwrap_or_default();
    let (mut classes, mut learners) = (Vec::new(), Vec::new());
    let mut origins = BTreeMap::new();
    for (file, text) in sources {
        let documents = Node::documents(&text).map_err(|error| Error::Invalid {
            place: file.display().to_string(),
            what: error.to_string(),
        })?;
        for node in documents {
            let value = node.value();
            if value.is_null() {
                continue;
            }
            let invalid = |fault| invalid(&file, &node, &fault);
            if value.get("apiVersion").is_some() {
                match documents::read(value).map_err(invalid)? {
                    Document::Class(class) => classes.push(*class),
                    Document::Learner(learner) => learners.push(learner),
                }
            } else {
                // Checked alone first, so that an error names this file.
                typed::<Config>(value.clone()).map_err(invalid)?;
                note_origins("", 1, &node, &file, &mut origins);
                merge(&mut config, value);
            }
        }
    }
    overlay_environment(&mut config, variables, &mut origins)?;
    // Each file is valid alone: what is not valid now is so by a variable.
    let config: Config = typed(config)
        .map_err(|fault| blamed_on_origin(&origins, &fault.path.join("."), &fault.what))?;
    check(&config).map_err(|(field, must)| blamed_on_origin(&origins, &field, must))?;
    Ok(Loaded {
        config,
        classes,
        learners,
        origins,
    })
}

fn invalid(file: &Path, node: &Node, fault: &Fault) -> Error {
    let (found, line) = node.find(&fault.path);
    let line = line.map(|line| format!(":{line}")).unwrap_or_default();
    Error::Invalid {
        place: format!("{}{line}", file.display()),
        what: format!("{fault}{}", fault.hint(found)),
    }
}

fn blamed_on_origin(origins: &BTreeMap<String, Origin>, field: &str, what: &str) -> Error {
    let origin = origins.get(field);
    if let Some(Origin::Variable(variable)) = origin {
        return Error::Environment {
            variable: variable.clone(),
            what: what.to_owned(),
        };
    }
    Error::Invalid {
        place: origin.map_or_else(|| "the configuration".to_owned(), ToString::to_string),
        what: format!("{field}: {what}"),
    }
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

fn note_origins(
    path: &str,
    line: u64,
    node: &Node,
    file: &Path,
    origins: &mut BTreeMap<String, Origin>,
) {
    if let Node::Map(fields) = node {
        for (key, node) in fields {
            let dot = if path.is_empty() { "" } else { "." };
            let below = format!("{path}{dot}{}", key.value);
            note_origins(&below, key.referenced.line(), node, file, origins);
        }
    } else {
        origins.insert(path.to_owned(), Origin::File(file.to_path_buf(), line));
    }
}

/// The first value that is out of its bounds, and what it must be.
fn check(config: &Config) -> Result<(), (String, &'static str)> {
    let bound = |holds: bool, field: &str, must| {
        if holds {
            Ok(())
        } else {
            Err((field.to_owned(), must))
        }
    };
    StoreAt::of(&config.store).map_err(|(key, must)| (format!("store.{key}"), must))?;
    ObjectsAt::of(&config.objects).map_err(|(key, must)| (format!("objects.{key}"), must))?;
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
    let tls = &config.tls;
    bound(
        tls.cert_file.is_empty() == tls.key_file.is_empty(),
        if tls.key_file.is_empty() {
            "tls.certFile"
        } else {
            "tls.keyFile"
        },
        "must be named with the other: a certificate is shown by 'certFile' and 'keyFile' together",
    )?;
    bound(
        config.health.drain_seconds <= MOST_DRAIN_SECONDS,
        "health.drainSeconds",
        "must be at most 300",
    )?;
    bound(
        config.limits.messages_per_minute > 0,
        "limits.messagesPerMinute",
        "must be at least 1",
    )?;
    for (route, targets) in &config.routes {
        bound(
            targets.iter().all(|target| target.model.contains('/')),
            &format!("routes.{route}"),
            "must name each model as 'provider/model'",
        )?;
    }
    Ok(())
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

    fn refused(text: &str, variables: &[(&str, &str)]) -> String {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        read(vec![("school.yaml".into(), text.to_owned())], variables)
            .expect_err("invalid")
            .to_string()
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_file_line_and_key() {
        let class = |spec: &str| {
            format!(
                "fleet:\n  maxLive: 7\n---\napiVersion: carrel.dev/v1alpha1\nkind: LearnerClass\nmetadata:\n  name: free\nspec:\n{spec}"
            )
        };
        let cases = [
            (
                class("  budget:\n    perDayUsd: 0.50\n"),
                "school.yaml:10: spec.budget.perDayUsd: must be text, not 0.5: put it in quotes, as in \"0.5\"",
            ),
            (
                class("  idle: {minSeconds: 60,\n    maxSeconds: \"900\"}\n"),
                "school.yaml:10: spec.idle.maxSeconds: must be a whole number from 0 to 4294967295, not the text \"900\": leave the quotes away",
            ),
            (
                class("  budget:\n    perDayUSD: '1'\n"),
                "school.yaml:10: spec.budget.perDayUSD: 'perDayUSD' is not known; did you mean 'perDayUsd'?",
            ),
            (
                class("  idle:\n    minSeconds: 0\n"),
                "school.yaml:10: spec.idle.minSeconds: must be from 1 to 86400",
            ),
            (
                "\nroutes:\n  default:\n  - model: demo/tutor\n  - modle: demo/x\n".to_owned(),
                "school.yaml:5: routes.default[1].modle: 'modle' is not known; did you mean 'model'?",
            ),
            (
                "fleet:\n  maxLive: 7\nroutes:\n  default: [{model: tutor}]\n".to_owned(),
                "school.yaml:4: routes.default: must name each model as 'provider/model'",
            ),
            (
                "fleet:\n\n  maxLive: 0\n".to_owned(),
                "school.yaml:3: fleet.maxLive: must be at least 1",
            ),
            (
                "objects:\n  url: gs://bucket\n".to_owned(),
                "school.yaml:2: objects.url: must be 'file:FOLDER' or 's3://BUCKET/PREFIX'",
            ),
            (
                "objects:\n  url: s3://bucket\n  endpoint: minio:9000\n".to_owned(),
                "school.yaml:3: objects.endpoint: must begin with 'https://' or 'http://'",
            ),
            (
                "objects:\n  url: file:x\n  caFile: ca.pem\n".to_owned(),
                "school.yaml:3: objects.caFile: is for 's3://' alone",
            ),
            (
                "store:\n  url: postgres://carrel:secret@db/carrel\n".to_owned(),
                "school.yaml:2: store.url: must hold no password: it stands in 'store.passwordFile'",
            ),
            (
                "store:\n  passwordFile: pw\n".to_owned(),
                "school.yaml:2: store.passwordFile: is for 'postgres://' alone",
            ),
            (
                "tls:\n  caFile: ca.crt\n  certFile: tls.crt\n".to_owned(),
                "school.yaml:3: tls.certFile: must be named with the other: a certificate is shown by 'certFile' and 'keyFile' together",
            ),
            (
                "health:\n  drainSeconds: 301\n".to_owned(),
                "school.yaml:2: health.drainSeconds: must be at most 300",
            ),
            (
                "objects:\n  url: s3://b\n  pathstyle: true\n".to_owned(),
                "school.yaml:3: objects.pathstyle: 'pathstyle' is not known; did you mean 'pathStyle'?",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(refused(&text, &[]), expected);
        }
    }

    #[test]
    fn a_variable_that_does_not_fit_is_blamed_itself() {
        let file = "fleet:\n  maxLive: 7\n";
        for (name, value, what) in [
            (
                "CARREL_FLEET_MAX_LIVE",
                "many",
                "must be a whole number from 0 to",
            ),
            ("CARREL_FLEET_MAX_LIVE", "0", "must be at least 1"),
            (
                "CARREL_FLEET_ISOLATION",
                "jail",
                "'jail' is not known; known are auto, oci, process",
            ),
            (
                "CARREL_STORE_URL",
                "mysql:x",
                "must be 'sqlite:FILE' or 'postgres://ROLE@HOST/DATABASE'",
            ),
        ] {
            let error = refused(file, &[(name, value)]);
            assert!(
                error.starts_with(&format!("{name}: ")) && error.contains(what),
                "{error}"
            );
        }
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
