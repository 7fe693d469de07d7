//! Each contradiction that is looked for is found where somebody made it.

use std::sync::Arc;

use carrel_store::SharedStore;
use carrel_store::adapter::audit::CHECKS;
use carrel_store::suite::audit::{BREAKS, found, lived};
use carrel_store_sqlite::SqliteStore;
use sqlx::{ConnectOptions, Executor};

#[tokio::test]
async fn what_does_not_add_up_is_named_and_nothing_else_is() {
    for (check, broken) in BREAKS {
        let (what, _) = CHECKS[check];
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.db");
        let store = SqliteStore::open(&file).await.expect("a store");
        let store: SharedStore = Arc::new(store);
        lived(&store, "ada").await;
        lived(&store, "bob").await;
        assert_eq!(found(&store).await, []);
        let beside = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut beside = beside.connect().await.expect("a connection");
        let done = beside.execute(broken).await.expect(broken);
        assert!(done.rows_affected() > 0, "{broken}");
        assert_eq!(found(&store).await, [("ada".to_owned(), what)], "{broken}");
    }
}
