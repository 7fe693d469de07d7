//! Objects of snapshot repositories in plain restic layout, a folder each: `ID/config`, `ID/data/ab/abcd…`, `ID/index/…`.

mod bucket;
mod keys;
mod refused;
#[cfg(test)]
mod tests;
mod wire;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrel_core::RepositoryId;
use futures::{Stream, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

use crate::{Error, durable};

use bucket::Bucket;
pub use bucket::S3;
pub use keys::{S3Credentials, S3Keys};
pub(crate) use refused::Trouble;

/// Waits before an object is made again that is said to be there and is not: its other writer is still at it, or failed.
const MAKE_AFTER: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// So many objects are removed at once.
const REMOVED_AT_ONCE: usize = 10;

/// The kinds of files in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum FileKind {
    /// The one file with the repository's parameters.
    Config,
    /// Wrapped keys for stock restic.
    Keys,
    /// Packs of chunks and trees.
    Data,
    /// Where chunks are in packs.
    Index,
    /// Snapshots.
    Snapshots,
    /// Locks of stock restic.
    Locks,
}

/// The storage of all repositories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Bucket(Arc<Bucket>),
    /// Somebody else's store, which makes objects create-only and durably.
    Other,
}

/// Whether an object was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    New,
    Exists,
}

impl Objects {
    /// A local folder, made if absent. What a call has written is on the disk when it returns.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn local(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let opened = durable::make_folder(&folder, 0o777)
            .and_then(|()| fs::canonicalize(&folder))
            .map_err(|source| Error::File {
                doing: format!("opening the folder of snapshots {}", folder.display()),
                source,
            })?;
        let store = LocalFileSystem::new_with_prefix(&opened)
            .map_err(Error::storage("opening the folder of snapshots"))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            place: Place::Folder(opened),
        })
    }

    /// Any object store; `put` must be durable when it returns.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            place: Place::Other,
        }
    }

    /// A bucket on a server that speaks S3's protocol. What the server does with conditional writes is tried out first.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or has no such bucket.
    pub async fn s3(options: &S3) -> Result<Self, Error> {
        let (store, bucket) = bucket::open(options).await?;
        Ok(Self {
            store,
            place: Place::Bucket(Arc::new(bucket)),
        })
    }

    /// Whether the server itself refuses to write over what is there; a folder always does.
    pub fn is_conditional(&self) -> bool {
        match &self.place {
            Place::Bucket(bucket) => bucket.conditional,
            Place::Folder(_) | Place::Other => true,
        }
    }

    /// The folder of a repository, when objects are in a local folder.
    pub(crate) fn folder(&self, repository: RepositoryId) -> Option<PathBuf> {
        match &self.place {
            Place::Folder(folder) => Some(folder.join(repository.to_string())),
            Place::Bucket(_) | Place::Other => None,
        }
    }

    /// Where stock restic finds a repository, and what else it must be told; `None` where it cannot.
    pub(crate) fn for_restic(&self, repository: RepositoryId) -> Option<(String, Vec<String>)> {
        match &self.place {
            Place::Folder(folder) => {
                let folder = folder.join(repository.to_string());
                Some((folder.display().to_string(), Vec::new()))
            }
            Place::Bucket(bucket) => Some(bucket.for_restic(repository)),
            Place::Other => None,
        }
    }

    fn root(repository: RepositoryId) -> Path {
        Path::from(repository.to_string())
    }

    fn kind_path(repository: RepositoryId, kind: FileKind) -> Path {
        Self::root(repository).join(<&str>::from(kind))
    }

    /// An object's place. `name` is 64 hexadecimal digits; without meaning for `Config`.
    fn path(repository: RepositoryId, kind: FileKind, name: &str) -> Path {
        let folder = Self::kind_path(repository, kind);
        match kind {
            FileKind::Config => folder,
            FileKind::Data => folder.join(name.get(..2).unwrap_or(name)).join(name),
            FileKind::Keys | FileKind::Index | FileKind::Snapshots | FileKind::Locks => {
                folder.join(name)
            }
        }
    }

    /// Writes an object that is not there yet; it is durable when this returns. One that is there has the same content, as
    /// its name says, or this is an error; a config is only parameters, and the first one stays.
    pub(crate) async fn put(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
        content: Bytes,
    ) -> Result<Put, object_store::Error> {
        let path = Self::path(repository, kind, name);
        let mut waits = MAKE_AFTER.iter();
        loop {
            match self.make(&path, content.clone()).await {
                Ok(()) => return Ok(Put::New),
                Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            match &self.place {
                Place::Folder(folder) => {
                    sync_name(folder.join(path.as_ref())).await?;
                    return Ok(Put::Exists);
                }
                Place::Other => return Ok(Put::Exists),
                Place::Bucket(_) => match self.read(repository, kind, name).await? {
                    Some(found) if found == content || kind == FileKind::Config => {
                        return Ok(Put::Exists);
                    }
                    Some(_) => {
                        let told = format!("{path} is there with another content");
                        return Err(failed(std::io::Error::other(told)));
                    }
                    None => {}
                },
            }
            let Some(wait) = waits.next() else {
                let told = format!("{path} is said to be there, and is not");
                return Err(failed(std::io::Error::other(told)));
            };
            tokio::time::sleep(*wait).await;
        }
    }

    async fn make(&self, path: &Path, content: Bytes) -> Result<(), object_store::Error> {
        let mut mode = PutMode::Create;
        if let Place::Bucket(bucket) = &self.place
            && !bucket.conditional
        {
            let found = self.within(self.store.head(path)).await;
            if self.present(found).await?.is_some() {
                return Err(object_store::Error::AlreadyExists {
                    path: path.to_string(),
                    source: "looked for before it is written".into(),
                });
            }
            mode = PutMode::Overwrite;
        }
        let bytes = content.len() as u64;
        let put = self
            .store
            .put_opts(path, content.into(), PutOptions::from(mode));
        self.carrying(bytes, put).await.map(|_| ())
    }

    /// Bounds a call to a server by more than it takes when all goes slowly and well.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, object_store::Error> {
        self.carrying(0, call).await
    }

    /// The same for a call that carries so many bytes.
    async fn carrying<T>(
        &self,
        bytes: u64,
        call: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, object_store::Error> {
        match &self.place {
            Place::Bucket(_) => bucket::within(bytes, call).await,
            Place::Folder(_) | Place::Other => call.await,
        }
    }

    /// `None` for what is absent. A server that knows nothing of our mark answers for another place, and proves nothing.
    async fn present<T>(
        &self,
        found: Result<T, object_store::Error>,
    ) -> Result<Option<T>, object_store::Error> {
        let found = absent_is_none(found)?;
        if found.is_none()
            && let Place::Bucket(_) = &self.place
        {
            self.within(bucket::must_be_marked(&*self.store)).await?;
        }
        Ok(found)
    }

    /// An object's size; `None` when it is absent.
    pub(crate) async fn size(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<Option<u64>, object_store::Error> {
        let path = Self::path(repository, kind, name);
        let found = self.within(self.store.head(&path)).await;
        self.present(found.map(|meta| meta.size)).await
    }

    /// An object or a range of it, as a stream; `None` when it is absent.
    pub(crate) async fn get(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
        range: Option<GetRange>,
    ) -> Result<Option<GetResult>, object_store::Error> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let path = Self::path(repository, kind, name);
        let found = self.within(self.store.get_opts(&path, options)).await;
        self.present(found).await
    }

    async fn whole(&self, found: GetResult) -> Result<Bytes, object_store::Error> {
        let bytes = found.range.end - found.range.start;
        self.carrying(bytes, found.bytes()).await
    }

    /// An object whole; `None` when it is absent.
    pub(crate) async fn read(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<Option<Bytes>, object_store::Error> {
        match self.get(repository, kind, name, None).await? {
            Some(found) => self.whole(found).await.map(Some),
            None => Ok(None),
        }
    }

    /// A part of an object; `None` when it is absent, and less than asked for where it is too short.
    pub(crate) async fn part(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Bytes>, object_store::Error> {
        let range = Some(GetRange::Bounded(range));
        match self.get(repository, kind, name, range).await? {
            Some(found) => self.whole(found).await.map(Some),
            None => Ok(None),
        }
    }

    /// All objects of a kind, by name.
    pub(crate) async fn list(
        &self,
        repository: RepositoryId,
        kind: FileKind,
    ) -> Result<Vec<(String, ObjectMeta)>, object_store::Error> {
        let folder = Self::kind_path(repository, kind);
        let listing = self.store.list(Some(&folder)).try_collect();
        let found: Vec<ObjectMeta> = self.within(listing).await?;
        let named = |meta: ObjectMeta| {
            let name = meta.location.filename()?.to_owned();
            is_name(&name).then_some((name, meta))
        };
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// The repositories of which anything is there.
    pub(crate) async fn repositories(&self) -> Result<Vec<RepositoryId>, object_store::Error> {
        let listed = self.within(self.store.list_with_delimiter(None)).await?;
        let folders = listed.common_prefixes.into_iter();
        let named = folders.filter_map(|folder| folder.filename()?.parse().ok());
        Ok(named.collect())
    }

    /// Removes an object; absent is fine.
    pub(crate) async fn remove(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<(), object_store::Error> {
        let path = Self::path(repository, kind, name);
        absent_is_none(self.within(self.store.delete(&path)).await).map(|_| ())
    }

    /// Removes objects, several at once; absent ones are fine.
    pub(crate) async fn remove_all(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        names: &[String],
    ) -> Result<(), object_store::Error> {
        let paths = names
            .iter()
            .map(|name| Ok(Self::path(repository, kind, name)));
        self.remove_stream(stream::iter(paths)).await
    }

    async fn remove_stream(
        &self,
        paths: impl Stream<Item = Result<Path, object_store::Error>>,
    ) -> Result<(), object_store::Error> {
        paths
            .try_for_each_concurrent(REMOVED_AT_ONCE, |path| async move {
                absent_is_none(self.within(self.store.delete(&path)).await).map(|_| ())
            })
            .await
    }

    /// Moves a damaged object out of the way, beside the repository's files; absent is fine.
    pub(crate) async fn put_aside(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<(), object_store::Error> {
        let from = Self::path(repository, kind, name);
        let aside = format!("{}-{name}", <&str>::from(kind));
        let to = Self::root(repository).join("damaged").join(aside);
        // On a server this is a copy and a removal; what is killed between them is done again.
        absent_is_none(self.within(self.store.rename(&from, &to)).await).map(|_| ())
    }

    /// Removes what uploads into a local folder left when they were killed before `oldest`, as seconds since 1970. No
    /// listing shows these files (`NAME#1`).
    pub(crate) fn sweep_unfinished(
        &self,
        repository: RepositoryId,
        oldest: i64,
    ) -> std::io::Result<()> {
        let mut folders: Vec<_> = self.folder(repository).into_iter().collect();
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let unfinished = entry.file_name().as_bytes().contains(&b'#');
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if unfinished && metadata.mtime() < oldest {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Removes everything of a repository.
    pub(crate) async fn erase(&self, repository: RepositoryId) -> Result<(), object_store::Error> {
        let root = Self::root(repository);
        let listing = self.store.list(Some(&root));
        let locations = stream::try_unfold(listing, |mut listing| async {
            let next = self.within(listing.try_next()).await?;
            Ok(next.map(|meta| (meta.location, listing)))
        });
        self.remove_stream(locations).await?;
        if let Some(folder) = self.folder(repository) {
            // Empty folders and unfinished uploads, which no listing shows.
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a text can be the name of an object: 64 lower-case hexadecimal digits.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The call that made an object may still be syncing its name, and this one must not answer before that is durable.
async fn sync_name(path: PathBuf) -> Result<(), object_store::Error> {
    let syncing = tokio::task::spawn_blocking(move || durable::sync_name(&path));
    let synced = syncing.await.map_err(std::io::Error::other).flatten();
    synced.map_err(failed)
}

fn failed(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "snapshots",
        source: error.into(),
    }
}

fn absent_is_none<T>(
    result: Result<T, object_store::Error>,
) -> Result<Option<T>, object_store::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
