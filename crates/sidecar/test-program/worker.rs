//! A snapshot worker that speaks the worker's protocol and copies folders. What it does wrong, and how long it takes, is
//! said by files beside the vault's socket.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(super) fn run() -> ExitCode {
    let mut text = String::new();
    let request = io::stdin()
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| serde_json::from_str::<Value>(&text).ok());
    let answer = request.and_then(|request| perform(&request));
    match answer.and_then(|answer| io::stdout().write_all(answer.to_string().as_bytes()).ok()) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn perform(request: &Value) -> Option<Value> {
    let vault = request["repository"]["endpoint"]
        .as_str()?
        .strip_prefix("unix:")?;
    let store = Path::new(vault).parent()?.to_owned();
    if let Ok(failure) = fs::read_to_string(store.join("snapshots-fail")) {
        return Some(json!({"failed": serde_json::from_str::<Value>(&failure).ok()?}));
    }
    let task = &request["task"];
    if let Some(backup) = task.get("backup") {
        backup_of(&store, Path::new(backup["workspace"].as_str()?))
    } else {
        let restore = task.get("restore")?;
        let from = store.join(restore["snapshot"].as_str()?);
        copy(&from, Path::new(restore["workspace"].as_str()?))?;
        Some(json!({"done": {"restore": {"total_bytes": 1, "files": 1}}}))
    }
}

fn backup_of(store: &Path, workspace: &Path) -> Option<Value> {
    let number = fs::read_dir(store).ok()?.count();
    let id = hex::encode(Sha256::digest(number.to_string()));
    let to: PathBuf = store.join(&id);
    fs::create_dir(&to).ok()?;
    copy(workspace, &to)?;
    // Who writes behind a snapshot's back is seen by copying twice.
    if let Ok(text) = fs::read_to_string(store.join("snapshots-take-milliseconds")) {
        sleep(Duration::from_millis(text.trim().parse().ok()?));
        let second = store.join(format!("{id}-again"));
        fs::create_dir(&second).ok()?;
        copy(workspace, &second)?;
    }
    Some(json!({"done": {"backup": {
        "snapshot_id": id, "new_bytes": 1, "total_bytes": 1, "files": 1, "skipped_special": 0,
    }}}))
}

fn copy(from: &Path, to: &Path) -> Option<()> {
    let done = Command::new("/bin/cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .ok()?;
    done.success().then_some(())
}
