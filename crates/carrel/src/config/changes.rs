//! What of a changed configuration waits for the next start. Names alone: values may be secrets.

use serde_json::Value;

use super::Loaded;

/// What a running server takes over; a path stands for everything under it.
const TAKEN_OVER: [&str; 5] = [
    "providers",
    "routes",
    "prices",
    "router.keys",
    "router.openOnLoopback",
];

/// The paths of the values that differ and are not taken over by a running server.
pub(crate) fn waiting(old: &Loaded, new: &Loaded) -> Vec<String> {
    let value = |loaded: &Loaded| serde_json::to_value(&loaded.config).unwrap_or_default();
    let mut paths = Vec::new();
    differing("", &value(old), &value(new), &mut paths);
    paths.sort();
    if (&old.classes, &old.learners) != (&new.classes, &new.learners) {
        paths.push("documents ('carrel class apply' takes classes over at once)".to_owned());
    }
    paths
}

fn differing(path: &str, old: &Value, new: &Value, paths: &mut Vec<String>) {
    if old == new || TAKEN_OVER.contains(&path) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, old) in old {
                let below = format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
                differing(&below, old, new.get(key).unwrap_or(&Value::Null), paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}
