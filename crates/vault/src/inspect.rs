//! Reads a snapshot whole and says whether it is intact. Every object it needs is compared with its hash.
//!
//! Absent or wrong in two readings is damage; any other error of the storage is an error here and proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use carrel_core::{RepositoryId, SnapshotId};
use carrel_protocol::vault::DataKey;
use rustic_core::repofile::{BlobType, IndexFile, PackId, SnapshotFile};
use rustic_core::{BlobId, Id, Open, Repository};
use tokio::runtime::Handle;

use crate::Error;
use crate::backend::Backend;
use crate::objects::{FileKind, Objects};
use crate::repository::open;

/// An object that was proved damaged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wrong {
    pub(crate) kind: Kind,
    /// 64 hexadecimal digits; empty for the config.
    pub(crate) name: String,
}

/// What kind of object, in the order in which damage is looked for: the later ones are found by the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Config,
    Index,
    Snapshot,
    Pack,
}

impl From<Kind> for FileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Config => Self::Config,
            Kind::Index => Self::Index,
            Kind::Snapshot => Self::Snapshots,
            Kind::Pack => Self::Data,
        }
    }
}

/// What a whole reading found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Objects that are absent or wrong.
    pub(crate) wrong: BTreeSet<Wrong>,
    /// Chunks or folders that no index knows or that do not open though their objects are right.
    pub(crate) lost: u64,
    /// Bytes of files that are intact.
    pub(crate) bytes: u64,
    /// Files that are intact.
    pub(crate) files: u64,
}

impl Inspection {
    pub(crate) fn is_intact(&self) -> bool {
        self.wrong.is_empty() && self.lost == 0
    }

    /// Whether what is wrong can be made anew from the rest: config and indexes.
    pub(crate) fn is_mendable(&self) -> bool {
        self.wrong
            .iter()
            .all(|wrong| matches!(wrong.kind, Kind::Config | Kind::Index))
    }
}

/// Reads a snapshot whole. Blocking.
pub(crate) fn inspect(
    objects: &Objects,
    repository: RepositoryId,
    key: &DataKey,
    backend: &Backend,
    runtime: &Handle,
    snapshot: &SnapshotId,
) -> Result<Inspection, Error> {
    let reader = Reader {
        objects,
        repository,
        runtime,
    };
    let mut found = Inspection::default();

    // The config has no hash: what opens it is the proof.
    let opened = match open(backend, key) {
        Err(Error::Unreadable(_)) => open(backend, key),
        other => other,
    };
    let repo = match opened {
        Err(Error::Unreadable(_)) => {
            found.wrong.insert(Wrong {
                kind: Kind::Config,
                name: String::new(),
            });
            return Ok(found);
        }
        other => other?,
    };
    for (name, _) in reader.list(FileKind::Index)? {
        found.wrong.extend(reader.check(Kind::Index, &name)?.err());
    }
    found
        .wrong
        .extend(reader.check(Kind::Snapshot, snapshot.as_str())?.err());
    if !found.wrong.is_empty() {
        return Ok(found);
    }

    let Some(index) = judged(backend, Blobs::read(&repo))? else {
        found.lost += 1;
        return Ok(found);
    };
    let id: Id = backend.judge(snapshot.as_str().parse())?;
    let Some(file) = judged(backend, repo.get_file::<SnapshotFile>(&id.into()))? else {
        found.lost += 1;
        return Ok(found);
    };
    walk(backend, repo, &reader, &index, &file, &mut found)?;
    Ok(found)
}

/// Reads every pack of a repository and gives the wrong ones, needed or not. Blocking.
pub(crate) fn wrong_packs(
    objects: &Objects,
    repository: RepositoryId,
    runtime: &Handle,
) -> Result<BTreeSet<Wrong>, Error> {
    let reader = Reader {
        objects,
        repository,
        runtime,
    };
    let mut wrong = BTreeSet::new();
    for (name, _) in reader.list(FileKind::Data)? {
        wrong.extend(reader.check(Kind::Pack, &name)?.err());
    }
    Ok(wrong)
}

/// Follows all folders of a snapshot and reads every pack that holds anything of it, once.
fn walk(
    backend: &Backend,
    repo: Repository<rustic_core::OpenStatus>,
    reader: &Reader<'_>,
    index: &Blobs,
    file: &SnapshotFile,
    found: &mut Inspection,
) -> Result<(), Error> {
    let repo = backend.judge(repo.to_indexed())?;
    let mut packs = BTreeMap::new();
    let mut folders = vec![file.tree];
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        if !seen.insert(folder) {
            continue;
        }
        let tree_blob = (BlobType::Tree, folder.into_inner().into());
        if !reader.holds(index, tree_blob, &mut packs, found)? {
            continue;
        }
        let Some(tree) = judged(backend, repo.get_tree(&folder))? else {
            found.lost += 1;
            continue;
        };
        for node in &tree.nodes {
            folders.extend(node.subtree);
            let mut whole = true;
            for chunk in node.content.iter().flatten() {
                let blob = (BlobType::Data, chunk.into_inner().into());
                whole &= reader.holds(index, blob, &mut packs, found)?;
            }
            if whole && node.is_file() {
                found.files += 1;
                found.bytes += node.meta.size;
            }
        }
    }
    Ok(())
}

/// A value of `rustic_core`, `None` where the data are bad, an error where the storage is.
fn judged<T>(backend: &Backend, value: rustic_core::RusticResult<T>) -> Result<Option<T>, Error> {
    match backend.judge(value) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unreadable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which packs hold a blob, by the indexes.
struct Blobs(BTreeMap<(u8, BlobId), BTreeSet<PackId>>);

impl Blobs {
    fn read<S: Open>(repo: &Repository<S>) -> rustic_core::RusticResult<Self> {
        let mut blobs: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for file in repo.stream_files::<IndexFile>()? {
            for pack in file?.1.packs {
                for blob in pack.blobs {
                    blobs
                        .entry((rank(blob.tpe), blob.id))
                        .or_default()
                        .insert(pack.id);
                }
            }
        }
        Ok(Self(blobs))
    }
}

fn rank(blob_type: BlobType) -> u8 {
    match blob_type {
        BlobType::Tree => 0,
        BlobType::Data => 1,
    }
}

struct Reader<'a> {
    objects: &'a Objects,
    repository: RepositoryId,
    runtime: &'a Handle,
}

impl Reader<'_> {
    fn list(&self, kind: FileKind) -> Result<Vec<(String, object_store::ObjectMeta)>, Error> {
        self.runtime
            .block_on(self.objects.list(self.repository, kind))
            .map_err(Error::storage("listing a repository"))
    }

    fn read(&self, kind: Kind, name: &str) -> Result<Option<Bytes>, Error> {
        self.runtime
            .block_on(self.objects.read(self.repository, kind.into(), name))
            .map_err(Error::storage("reading a repository"))
    }

    /// Reads an object, a second time when the first was absent or wrong.
    fn check(&self, kind: Kind, name: &str) -> Result<Result<(), Wrong>, Error> {
        for _ in 0..2 {
            let right = self
                .read(kind, name)?
                .is_some_and(|content| hex::encode(digest(&SHA256, &content)) == name);
            if right {
                return Ok(Ok(()));
            }
        }
        Ok(Err(Wrong {
            kind,
            name: name.to_owned(),
        }))
    }

    /// Whether every pack that the indexes name for a blob is right. (`rustic_core` takes any of them.)
    fn holds(
        &self,
        index: &Blobs,
        (blob_type, id): (BlobType, BlobId),
        packs: &mut BTreeMap<PackId, bool>,
        found: &mut Inspection,
    ) -> Result<bool, Error> {
        let Some(holders) = index.0.get(&(rank(blob_type), id)) else {
            found.lost += 1;
            return Ok(false);
        };
        let mut all = true;
        for pack in holders {
            let right = if let Some(right) = packs.get(pack) {
                *right
            } else {
                let checked = self.check(Kind::Pack, pack.to_hex().as_str())?;
                let right = checked.is_ok();
                found.wrong.extend(checked.err());
                packs.insert(*pack, right);
                right
            };
            all &= right;
        }
        Ok(all)
    }
}
