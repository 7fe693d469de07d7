//! Takes a snapshot, in the worker.

use std::path::{Path, PathBuf};

use carrel_core::SnapshotId;
use rustic_core::repofile::MasterKey;
use rustic_core::{
    BackupOptions, Credentials, OpenStatus, ParentOptions, Repository as Rustic,
    RepositoryBackends, RepositoryOptions, SnapshotOptions,
};

use super::error::Failure;
use super::request::{BackupOutcome, Limits, Repository};
use super::rest::RestBackend;
use super::source::Source;
use super::walk;

/// What snapshots call the workspace and the host, wherever they were taken: parents are found by it.
const SNAPSHOT_PATH: &str = "/workspace";
const SNAPSHOT_HOST: &str = "carrel";

/// Opens the repository: no cache folder, no password.
pub(super) fn open(
    repository: &Repository,
    backend: &RestBackend,
) -> Result<Rustic<OpenStatus>, Failure> {
    let backends = RepositoryBackends::new(std::sync::Arc::new(backend.clone()), None);
    let key = &repository.key;
    let key = serde_json::json!({
        "mac": {"k": key.mac_k, "r": key.mac_r},
        "encrypt": key.encrypt,
    });
    let key: MasterKey = serde_json::from_value(key).map_err(|_| Failure::Crashed)?;
    Rustic::new(&RepositoryOptions::default().no_cache(true), &backends)
        .and_then(|repo| repo.open(&Credentials::Masterkey(key)))
        .map_err(|error| blame(backend, &error.display_log()))
}

/// The backend's failure if it had one; else the data do not add up.
pub(super) fn blame(backend: &RestBackend, otherwise: &str) -> Failure {
    backend
        .failure()
        .unwrap_or_else(|| Failure::Damaged(otherwise.to_owned()))
}

/// Takes a snapshot of a workspace.
pub(super) fn backup(
    repository: &Repository,
    workspace: &Path,
    parent: Option<&SnapshotId>,
    limits: &Limits,
) -> Result<BackupOutcome, Failure> {
    let listing = walk::walk(workspace, limits)?;
    let backend = RestBackend::new(repository)?;
    let internal = |error: Box<rustic_core::RusticError>| blame(&backend, &error.display_log());
    let repo = open(repository, &backend)?
        .to_indexed_ids()
        .map_err(internal)?;

    let parent_options = match parent {
        Some(id) => ParentOptions::default().parents(vec![id.to_string()]),
        None => ParentOptions::default().force(true),
    };
    let options = BackupOptions::default()
        .no_scan(true)
        .parent_opts(parent_options);
    let snapshot = SnapshotOptions::default()
        .host(SNAPSHOT_HOST.to_owned())
        .to_snapshot()
        .map_err(internal)?;
    let source = Source::new(workspace, listing.entries);
    let archived = repo.archive(&options, &source, snapshot, &[PathBuf::from(SNAPSHOT_PATH)]);

    if let Some(what) = source.unreadable() {
        return Err(Failure::Unreadable(what));
    }
    if let Some(failure) = backend.failure() {
        return Err(failure);
    }
    let snapshot = archived.map_err(internal)?;
    let summary = snapshot.summary.clone().unwrap_or_default();
    // A file that was passed over on the way would be lost without a word.
    if summary.total_bytes_processed != listing.bytes {
        return Err(Failure::Unreadable(format!(
            "{} of {} bytes were read",
            summary.total_bytes_processed, listing.bytes
        )));
    }
    Ok(BackupOutcome {
        snapshot_id: snapshot
            .id
            .to_hex()
            .as_str()
            .parse()
            .map_err(|_| Failure::Crashed)?,
        new_bytes: summary.data_added_packed,
        total_bytes: listing.bytes,
        files: listing.files,
        skipped_special: listing.special,
    })
}
