//! A repository's objects as `rustic_core` wants to see them: blocking, from its own threads.
//!
//! `rustic_core` swallows some errors. The first storage error is kept here, so that nobody takes it for damage.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use carrel_core::RepositoryId;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};
use tokio::runtime::Handle;

use crate::Error;
use crate::objects::{FileKind, Objects};

/// A repository's objects for `rustic_core`. Never call it on a thread of the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    objects: Objects,
    repository: RepositoryId,
    runtime: Handle,
    failure: Arc<Mutex<Option<object_store::Error>>>,
    /// What the config was found to be, for who reads it next; after that it is read anew.
    config: Arc<Mutex<Option<Bytes>>>,
}

impl Backend {
    /// To be made inside a runtime.
    pub(crate) fn new(objects: Objects, repository: RepositoryId) -> Self {
        Self {
            objects,
            repository,
            runtime: Handle::current(),
            failure: Arc::default(),
            config: Arc::default(),
        }
    }

    /// Tells what the config was found to be just now.
    pub(crate) fn tell_config(&self, found: Bytes) {
        *self.config() = Some(found);
    }

    fn config(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `value` unless the storage failed meanwhile; an error of `rustic_core` without that is about the data.
    pub(crate) fn judge<T>(&self, value: RusticResult<T>) -> Result<T, Error> {
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (failure, value) {
            (Some(source), _) => Err(Error::Storage {
                doing: "working on a repository",
                source,
            }),
            (None, Ok(value)) => Ok(value),
            (None, Err(error)) => Err(Error::Unreadable(error.display_log().clone())),
        }
    }

    fn failed(&self, error: object_store::Error) -> Box<RusticError> {
        let told = RusticError::new(ErrorKind::Backend, "the storage failed");
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        told
    }
}

fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::Config => FileKind::Config,
        FileType::Index => FileKind::Index,
        FileType::Key => FileKind::Keys,
        FileType::Snapshot => FileKind::Snapshots,
        FileType::Pack => FileKind::Data,
    }
}

fn size(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.repository.to_string()
    }

    fn list_with_size(&self, file_type: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let (objects, repository) = (&self.objects, self.repository);
        if file_type == FileType::Config {
            let known = self.config().as_ref().map(|config| config.len() as u64);
            let found = match known {
                None => self
                    .runtime
                    .block_on(objects.size(repository, FileKind::Config, ""))
                    .map_err(|error| self.failed(error))?,
                known => known,
            };
            return Ok(found
                .map(|bytes| (Id::default(), size(bytes)))
                .into_iter()
                .collect());
        }
        let listed = self
            .runtime
            .block_on(objects.list(repository, kind(file_type)))
            .map_err(|error| self.failed(error))?;
        listed
            .into_iter()
            .map(|(name, meta)| Ok((name.parse()?, size(meta.size))))
            .collect()
    }

    fn read_full(&self, file_type: FileType, id: &Id) -> RusticResult<Bytes> {
        if file_type == FileType::Config
            && let Some(config) = self.config().take()
        {
            return Ok(config);
        }
        let name = id.to_hex();
        let objects = &self.objects;
        self.runtime
            .block_on(objects.read(self.repository, kind(file_type), name.as_str()))
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| RusticError::new(ErrorKind::Backend, "an object is absent"))
    }

    fn read_partial(
        &self,
        file_type: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        let name = id.to_hex();
        let (kind, name) = (kind(file_type), name.as_str());
        let read = async {
            let objects = &self.objects;
            match objects
                .part(self.repository, kind, name, range.clone())
                .await
            {
                Ok(part) => Ok(part),
                // A range past the end is an error of the storage by its type, but it is damage: the object is too short.
                Err(error) => match objects.size(self.repository, kind, name).await? {
                    Some(bytes) if bytes >= range.end => Err(error),
                    _ => Ok(None),
                },
            }
        };
        let part = self.runtime.block_on(read);
        part.map_err(|error| self.failed(error))?
            .filter(|part| part.len() == length as usize)
            .ok_or_else(|| RusticError::new(ErrorKind::Backend, "an object is absent or too short"))
    }

    fn warmup_path(&self, _: FileType, id: &Id) -> String {
        id.to_hex().as_str().to_owned()
    }
}

impl WriteBackend for Backend {
    fn write_bytes(
        &self,
        file_type: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        let mut body = Vec::with_capacity(content.size());
        content
            .reader()
            .read_to_end(&mut body)
            .expect("bytes in memory can be read");
        let name = id.to_hex();
        let put = self
            .objects
            .put(self.repository, kind(file_type), name.as_str(), body.into());
        self.runtime
            .block_on(put)
            .map(|_| ())
            .map_err(|error| self.failed(error))
    }

    fn remove(&self, file_type: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let name = id.to_hex();
        let removal = self
            .objects
            .remove(self.repository, kind(file_type), name.as_str());
        self.runtime
            .block_on(removal)
            .map_err(|error| self.failed(error))
    }
}
