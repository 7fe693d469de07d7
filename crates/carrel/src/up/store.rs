//! Opens durable state where the configuration says it is.

use std::path::Path;
use std::sync::Arc;

use carrel_store::SharedStore;
use carrel_store_postgres::PostgresStore;
use carrel_store_sqlite::SqliteStore;

use super::models::secret_in;
use crate::config::{self, StoreAt};
use crate::exit::{Failure, Kind};

/// Durable state, opened.
pub(super) enum Opened {
    /// A file of this process alone.
    Sqlite(Arc<SqliteStore>),
    /// A database that others use too.
    Postgres(Arc<PostgresStore>),
}

impl Opened {
    /// Opens it; a relative file lies in `dir`.
    pub(super) async fn open(dir: &Path, store: &config::Store) -> anyhow::Result<Self> {
        match at(store)? {
            StoreAt::File(file) => {
                let opened = SqliteStore::open(&dir.join(file)).await?;
                Ok(Self::Sqlite(Arc::new(opened)))
            }
            StoreAt::Postgres(url) => {
                let opened = PostgresStore::open(&postgres(dir, store, url)?).await?;
                Ok(Self::Postgres(Arc::new(opened)))
            }
        }
    }

    pub(super) fn shared(&self) -> SharedStore {
        match self {
            Self::Sqlite(store) => Arc::<SqliteStore>::clone(store),
            Self::Postgres(store) => Arc::<PostgresStore>::clone(store),
        }
    }

    /// Whether no other process uses it.
    pub(super) fn is_ours_alone(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}

/// Brings the schema up to this program's version; what was brought up, for people.
pub(crate) async fn migrate(dir: &Path, store: &config::Store) -> anyhow::Result<&'static str> {
    match at(store)? {
        // Opening does it.
        StoreAt::File(file) => {
            SqliteStore::open(&dir.join(file)).await?.close().await;
            Ok("the store's file")
        }
        StoreAt::Postgres(url) => {
            carrel_store_postgres::migrate(&postgres(dir, store, url)?).await?;
            Ok("the database")
        }
    }
}

/// Where it is, checked.
pub(super) fn at(store: &config::Store) -> Result<StoreAt<'_>, Failure> {
    let invalid = |(key, must)| Failure::new(Kind::Usage, format!("store.{key}: {must}"));
    StoreAt::of(store).map_err(invalid)
}

fn postgres(
    dir: &Path,
    store: &config::Store,
    url: &str,
) -> anyhow::Result<carrel_store_postgres::Options> {
    let mut options = carrel_store_postgres::Options::new(url);
    if !store.password_file.is_empty() {
        options.password = Some(secret_in(dir, "store.passwordFile", &store.password_file)?);
    }
    Ok(options)
}
