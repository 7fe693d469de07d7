//! The store shows every behaviour of the port's suite.

use std::sync::Arc;

use carrel_store::SharedStore;
use carrel_store_sqlite::SqliteStore;
use tempfile::TempDir;

async fn open() -> Option<(SharedStore, TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("store.db")).await;
    Some((Arc::new(store.expect("a store")), folder))
}

carrel_store::store_suite!(open);
