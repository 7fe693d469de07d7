//! `carrel keys`: the keys of a new installation, made before any of its roles starts.

use std::path::Path;

use anyhow::Context as _;
use carrel_vault::durable;
use serde_json::json;

use crate::cli::KeysCommand;
use crate::exit::{Failure, Kind};
use crate::output;
use crate::up;

pub(super) fn run(command: KeysCommand) -> anyhow::Result<()> {
    let KeysCommand::Create {
        out,
        secret,
        namespace,
    } = command;
    match (out, secret) {
        (Some(dir), _) => files(&dir),
        (None, Some(name)) => manifest(&name, namespace.as_deref()),
        (None, None) => unreachable!("one of them is required"),
    }
}

fn files(dir: &Path) -> anyhow::Result<()> {
    let is_new = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if !is_new {
        let message = format!(
            "{} is not empty: keys are made in a folder of their own",
            dir.display()
        );
        return Err(Failure::new(Kind::Conflict, message).into());
    }
    durable::make_folder(dir, 0o700).with_context(|| format!("making {}", dir.display()))?;
    for (name, text) in up::new_keys()? {
        let file = dir.join(name);
        durable::make_file(&file, text.as_bytes())
            .with_context(|| format!("writing {}", file.display()))?;
        output::line(&file.display().to_string())?;
    }
    output::talk("carrel: keep a copy of kek: without it no snapshot can be read");
    Ok(())
}

fn manifest(name: &str, namespace: Option<&str>) -> anyhow::Result<()> {
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let data: serde_json::Map<_, _> = up::new_keys()?
        .into_iter()
        .map(|(name, text)| (name.to_owned(), json!(text)))
        .collect();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        // Another key-encryption key would open no snapshot: what is there is not changed by mistake.
        "immutable": true,
        "type": "Opaque",
        "stringData": data,
    });
    output::line(serde_yaml::to_string(&secret)?.trim_end())
}
