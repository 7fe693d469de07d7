//! One learner's repository, opened with its data key: blocking work for the blocking pool.

use std::sync::Arc;

use bytesize::ByteSize;
use carrel_core::SnapshotId;
use carrel_protocol::vault::DataKey;
use rustic_core::repofile::{BlobType, MasterKey, Node, SnapshotFile};
use rustic_core::{
    BlobId, ConfigOptions, Credentials, IndexedFull, KeyOptions, OpenStatus, Repository,
    RepositoryBackends, RepositoryOptions,
};

use crate::Error;
use crate::backend::Backend;

const KIB: u64 = 1024;

/// What is fixed when a repository is made: small chunks, because a turn changes little of a small workspace; packs that
/// fit into a request; zstd at its default level.
fn parameters() -> ConfigOptions {
    let size = |kib: u64| ByteSize(kib * KIB);
    ConfigOptions::default()
        .set_chunk_size(size(64))
        .set_chunk_min_size(size(16))
        .set_chunk_max_size(size(512))
        .set_compression(3)
        .set_treepack_size(size(4 * KIB))
        .set_treepack_size_limit(size(8 * KIB))
        .set_datapack_size(size(8 * KIB))
        .set_datapack_size_limit(size(16 * KIB))
}

fn closed(backend: &Backend) -> Result<Repository<()>, Error> {
    let backends = RepositoryBackends::new(Arc::new(backend.clone()), None);
    backend.judge(Repository::new(
        &RepositoryOptions::default().no_cache(true),
        &backends,
    ))
}

fn credentials(key: &DataKey) -> Result<Credentials, Error> {
    let key = serde_json::json!({
        "mac": {"k": key.mac_k, "r": key.mac_r},
        "encrypt": key.encrypt,
    });
    serde_json::from_value::<MasterKey>(key)
        .map(Credentials::Masterkey)
        .map_err(|_| Error::Key("a data key is malformed"))
}

/// Makes the repository's config; its objects may be there already (a lost config is only parameters).
pub(crate) fn create(backend: &Backend, key: &DataKey) -> Result<(), Error> {
    let made = closed(backend)?.init(&credentials(key)?, &KeyOptions::default(), &parameters());
    backend.judge(made).map(drop)
}

pub(crate) fn open(backend: &Backend, key: &DataKey) -> Result<Repository<OpenStatus>, Error> {
    let repository = closed(backend)?;
    backend.judge(repository.open(&credentials(key)?))
}

/// Checks that a snapshot can be read: its file, its root tree, and one chunk of its first file.
pub(crate) fn read_back(
    backend: &Backend,
    key: &DataKey,
    snapshot: &SnapshotId,
) -> Result<(), Error> {
    let repository = backend.judge(open(backend, key)?.to_indexed())?;
    let file = snapshot_file(backend, &repository, snapshot)?;
    let mut folders = vec![file.tree];
    // As deep as it takes to find a file; a workspace of empty folders has none.
    while let Some(folder) = folders.pop() {
        let tree = backend.judge(repository.get_tree(&folder))?;
        if let Some(chunk) = tree.nodes.iter().find_map(first_chunk) {
            let read = repository.get_blob_cached(&chunk, BlobType::Data);
            return backend.judge(read).map(drop);
        }
        folders.extend(tree.nodes.iter().rev().filter_map(|node| node.subtree));
    }
    Ok(())
}

fn first_chunk(node: &Node) -> Option<BlobId> {
    let chunk = node.content.as_ref()?.first()?;
    Some(chunk.into_inner().into())
}

pub(crate) fn snapshot_file<S: IndexedFull>(
    backend: &Backend,
    repository: &Repository<S>,
    snapshot: &SnapshotId,
) -> Result<SnapshotFile, Error> {
    let id: rustic_core::Id = backend.judge(snapshot.as_str().parse())?;
    backend.judge(repository.get_file(&id.into()))
}
