//! Each contradiction that is looked for is found where somebody made it.

mod support;

use std::sync::Arc;

use carrel_store::SharedStore;
use carrel_store::adapter::audit::CHECKS;
use carrel_store::suite::audit::{BREAKS, found, lived};
use sqlx::Executor;
use support::Database;

#[tokio::test]
async fn what_does_not_add_up_is_named_and_nothing_else_is() {
    for (check, broken) in BREAKS {
        let (what, _) = CHECKS[check];
        let Some(database) = Database::fresh().await else {
            return;
        };
        let store: SharedStore = Arc::new(database.store().await);
        lived(&store, "ada").await;
        lived(&store, "bob").await;
        assert_eq!(found(&store).await, []);
        let mut beside = database.connection().await;
        let done = beside.execute(broken).await.expect(broken);
        assert!(done.rows_affected() > 0, "{broken}");
        assert_eq!(found(&store).await, [("ada".to_owned(), what)], "{broken}");
    }
}
