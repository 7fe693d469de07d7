//! A store on a database of its own, in this program's server.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod relay;

use carrel_store_postgres::{Options, PostgresStore, migrate};
use carrel_testkit::postgres::{SUPERUSER, Server};
use carrel_testkit::until;
use relay::Relay;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::{Mutex, OnceCell};

/// Behaviours do not depend on the disk; what does has a server with `fsync`.
pub(crate) const SETTINGS: &[&str] = &["fsync=off"];
const TEMPLATE: &str = "migrated";

/// A database with the schema and nothing in it.
pub(crate) struct Database {
    pub(crate) server: &'static Server,
    pub(crate) name: String,
}

impl Database {
    /// `None` where PostgreSQL is not installed.
    pub(crate) async fn fresh() -> Option<Self> {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let server = Server::shared(SETTINGS)?;
        MADE.get_or_init(|| async {
            server.psql("postgres", &format!("CREATE DATABASE {TEMPLATE}"));
            let options = Options::new(&server.url(SUPERUSER, TEMPLATE));
            migrate(&options).await.expect("migrated");
        })
        .await;
        Some(Self {
            server,
            name: server.database(TEMPLATE),
        })
    }

    /// A database without a schema beside it.
    pub(crate) fn empty(&self) -> Self {
        Self {
            server: self.server,
            name: self.server.database("template1"),
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(&self.server.url(SUPERUSER, &self.name))
    }

    /// A connection beside the store's.
    pub(crate) async fn connection(&self) -> PgConnection {
        let url = self.server.url(SUPERUSER, &self.name);
        PgConnection::connect(&url).await.expect("a connection")
    }

    /// Waits until a statement gives true; in it, `pg_stat_activity` and `pg_locks` are those of this database.
    pub(crate) async fn until(&self, holds: &str) {
        const HERE: &str = "WITH pg_stat_activity AS (SELECT * FROM pg_catalog.pg_stat_activity \
            WHERE datname = current_database()), pg_locks AS (SELECT l.* FROM pg_catalog.pg_locks l \
            JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database()) ";
        let connection = Mutex::new(self.connection().await);
        let sql = format!("{HERE} {holds}");
        until(holds, async || {
            let seen = sqlx::query_scalar(AssertSqlSafe(sql.clone()));
            let mut connection = connection.lock().await;
            seen.fetch_one(&mut *connection).await.expect("answered")
        })
        .await;
    }

    /// A store that reaches the database by a relay.
    pub(crate) async fn relayed(&self, relay: &Relay) -> PostgresStore {
        let store = PostgresStore::open(&self.by(relay)).await;
        store.expect("a store")
    }

    /// The way to the database by a relay.
    pub(crate) fn by(&self, relay: &Relay) -> Options {
        let folder = relay.folder();
        let url = format!(
            "postgres://{SUPERUSER}@localhost/{}?host={}",
            self.name,
            folder.display()
        );
        Options::new(&url)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        let store = PostgresStore::open(&self.options()).await;
        store.expect("a store")
    }
}
