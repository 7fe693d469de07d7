//! Opening the file: rights, version of the library, settings, schema.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::broadcast;

use crate::SqliteStore;
use crate::processes::Here;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Earlier libraries can corrupt a file when its write-ahead log is reset.
const OLDEST_LIBRARY: [u32; 3] = [3, 51, 3];
const READERS: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS_KEPT: usize = 256;
const HINTS_KEPT: usize = 4096;

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be made or its rights cannot be set.
    #[error("the store's file {path} cannot be made or protected")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The library has a bug that corrupts files.
    #[error(
        "SQLite {found} can corrupt a store: {} or later is needed",
        dotted(OLDEST_LIBRARY)
    )]
    Library {
        /// Its version.
        found: String,
    },
    /// A newer version of this program has brought the schema up to its own.
    #[error(
        "a newer Carrel has written the store {path} (its migration {migration} is not known here), and an older one must not: \
         start the newer one, or put the data folder back that was copied before the upgrade (docs/operations.md)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Of its migrations, one that is not ours.
        migration: i64,
    },
    /// A migration failed.
    #[error("the store's schema cannot be brought up to date")]
    Schema(#[source] MigrateError),
    /// The database refused.
    #[error("the store's file cannot be opened")]
    Database(#[source] sqlx::Error),
}

impl SqliteStore {
    /// Opens the file, makes it (mode 0600) if it is not there, and brings its schema up to this program's version.
    /// Never on network storage.
    ///
    /// # Errors
    /// When the file, the library or the schema does not serve.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        protect(path).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
        let common = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(STATEMENTS_KEPT)
            .pragma("temp_store", "MEMORY");
        let writing = common
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is deleted is overwritten: a destroyed key must not be found in a free page.
            .pragma("secure_delete", "ON");
        let writer = pool(1)
            .connect_with(writing)
            .await
            .map_err(Error::Database)?;
        check_library(&writer).await?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(migration) => Error::Newer {
                path: path.to_owned(),
                migration,
            },
            error => Error::Schema(error),
        })?;
        let readers = pool(READERS)
            .connect_with(common.read_only(true))
            .await
            .map_err(Error::Database)?;
        let (changes, _) = broadcast::channel(HINTS_KEPT);
        Ok(Self {
            writer,
            readers,
            changes,
            here: Here::default(),
        })
    }

    /// Waits for what is under way and closes the file; everything after is refused.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// No connection is ever replaced and none is checked before use: no timer runs for an idle store.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// The file with mode 0600; the log beside it gets the same from SQLite.
fn protect(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

async fn check_library(pool: &SqlitePool) -> Result<(), Error> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(pool)
        .await
        .map_err(Error::Database)?;
    if is_old(&found) {
        return Err(Error::Library { found });
    }
    Ok(())
}

fn is_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let mut next = || parts.next().flatten().unwrap_or_default();
    [next(), next(), next()] < OLDEST_LIBRARY
}

fn dotted(version: [u32; 3]) -> String {
    version.map(|part| part.to_string()).join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_with_the_bug_of_the_log_is_old() {
        for old in ["3.51.2", "3.50.9", "2.99.99", "3.6.23", "rubbish"] {
            assert!(is_old(old), "{old} was taken");
        }
        for new in ["3.51.3", "3.51.10", "3.52.0", "4.0.0"] {
            assert!(!is_old(new), "{new} was refused");
        }
    }

    #[tokio::test]
    async fn commits_reach_the_disk_and_readers_cannot_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        let store = store.expect("a store");
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&store.writer)
            .await
            .expect("a mode");
        assert_eq!(mode, "wal");
        for (pragma, expected) in [
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            ("PRAGMA secure_delete", 1),
        ] {
            let found: i64 = sqlx::query_scalar(pragma)
                .fetch_one(&store.writer)
                .await
                .expect(pragma);
            assert_eq!(found, expected, "{pragma}");
        }
        let written = sqlx::query("DELETE FROM class")
            .execute(&store.readers)
            .await;
        let error = written.expect_err("a reader wrote").to_string();
        assert!(error.contains("readonly"), "{error}");
    }
}
