//! Objects of snapshot repositories in plain restic layout, a folder each: `ID/config`, `ID/data/ab/abcd…`, `ID/index/…`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use carrel_core::RepositoryId;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

use crate::{Error, durable};

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
    folder: Option<PathBuf>,
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
            folder: Some(opened),
        })
    }

    /// Any object store; `put` must be durable when it returns.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            folder: None,
        }
    }

    /// The folder of a repository, when objects are in a local folder.
    pub(crate) fn folder(&self, repository: RepositoryId) -> Option<PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.join(repository.to_string()))
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

    /// Writes an object that is not there yet.
    pub(crate) async fn put(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
        content: Bytes,
    ) -> Result<Put, object_store::Error> {
        let options = PutOptions::from(PutMode::Create);
        let path = Self::path(repository, kind, name);
        match self.store.put_opts(&path, content.into(), options).await {
            Ok(_) => Ok(Put::New),
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.sync_name(&path).await?;
                Ok(Put::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// The call that made an object may still be syncing its name, and this one must not answer before that is durable.
    async fn sync_name(&self, path: &Path) -> Result<(), object_store::Error> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let path = folder.join(path.as_ref());
        let syncing = tokio::task::spawn_blocking(move || durable::sync_name(&path));
        let synced = syncing.await.map_err(std::io::Error::other).flatten();
        synced.map_err(failed)
    }

    /// An object's size; `None` when it is absent.
    pub(crate) async fn size(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<Option<u64>, object_store::Error> {
        let path = Self::path(repository, kind, name);
        absent_is_none(self.store.head(&path).await.map(|meta| meta.size))
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
        absent_is_none(self.store.get_opts(&path, options).await)
    }

    /// An object whole; `None` when it is absent.
    pub(crate) async fn read(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<Option<Bytes>, object_store::Error> {
        match self.get(repository, kind, name, None).await? {
            Some(found) => found.bytes().await.map(Some),
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
        let found: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await?;
        let named = |meta: ObjectMeta| {
            let name = meta.location.filename()?.to_owned();
            is_name(&name).then_some((name, meta))
        };
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// Removes an object; absent is fine.
    pub(crate) async fn remove(
        &self,
        repository: RepositoryId,
        kind: FileKind,
        name: &str,
    ) -> Result<(), object_store::Error> {
        let path = Self::path(repository, kind, name);
        absent_is_none(self.store.delete(&path).await).map(|_| ())
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
        absent_is_none(self.store.rename(&from, &to).await).map(|_| ())
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
        let locations = self
            .store
            .list(Some(&root))
            .map_ok(|meta| meta.location)
            .boxed();
        self.store
            .delete_stream(locations)
            .map(absent_is_none)
            .try_for_each(|_| async { Ok(()) })
            .await?;
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

fn failed(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "local",
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
