//! The store shows every behaviour of the port's suite.

mod support;

use std::sync::Arc;

use carrel_store::SharedStore;
use support::Database;

async fn open() -> Option<(SharedStore, Database)> {
    let database = Database::fresh().await?;
    Some((Arc::new(database.store().await), database))
}

carrel_store::store_suite!(open);
