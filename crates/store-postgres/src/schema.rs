//! The schema: who brings it up to this program's version, and who refuses to work on an older one.

use std::time::Duration;

use carrel_store::Error as StoreError;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolOptions;

use crate::fault::{Fault, during};
use crate::open::{Error, Options};
use crate::pool::{self, Pool};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A migration that waits longer for a lock gives up: whoever comes after it would wait behind it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Brings the schema up to this program's version, one process at a time (an advisory lock of the database). Each migration is
/// one transaction that only adds, or replaces an index: the version before this one runs on the new schema, and what it used is removed by a later
/// one. Repeatable.
///
/// # Errors
/// When the database cannot be reached, a lock is not free within five seconds, or a migration fails.
pub async fn migrate(options: &Options) -> Result<(), Error> {
    let lock_timeout = format!("{}ms", LOCK_TIMEOUT.as_millis());
    let connect = options
        .connect_options()?
        // What it waits for is bounded, not what it does.
        .options([
            ("lock_timeout", lock_timeout.as_str()),
            ("statement_timeout", "0"),
        ]);
    let away = |error| Error::at(&connect, during("connecting")(Fault::Database(error)));
    let mut connection = pool::apart(&connect).await.map_err(away)?;
    check_server(&mut connection).await?;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy_with(connect);
    let migrated = MIGRATIONS.run(&pool).await;
    pool.close().await;
    migrated.map_err(Error::Migration)
}

/// Refuses a server that lacks what the statements use.
async fn check_server(connection: &mut PgConnection) -> Result<(), Error> {
    const OLDEST: i32 = 150_000;
    let found: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(connection)
        .await
        .map_err(|error| Error::Store(during("asking for the server's version")(error.into())))?;
    if found < OLDEST {
        return Err(Error::Server {
            found: found / 10_000,
        });
    }
    Ok(())
}

/// Refuses a schema that is older than this program's. A newer one only has more.
pub(crate) async fn check(pool: &Pool) -> Result<(), StoreError> {
    let wanted = MIGRATIONS.iter().map(|one| one.version).max().unwrap_or(0);
    let read = async {
        let is_there: bool =
            sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
                .fetch_one(pool)
                .await?;
        if !is_there {
            return Ok(0);
        }
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await
    };
    let found: i64 = read
        .await
        .map_err(|error| during("reading the version of the schema")(Fault::Database(error)))?;
    if found < wanted {
        return Err(StoreError::Schema { found, wanted });
    }
    Ok(())
}
