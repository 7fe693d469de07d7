//! The processes that share the database. A task is an advisory lock of a connection that nothing else uses: the server gives
//! it up when the process ends, however it ends, and keeps it while the process is only paused.

use std::time::Duration;

use carrel_core::OwnerId;
use carrel_store::adapter::column::{nanos, parsed};
use carrel_store::processes::{Lead, Process, Role, Task};
use carrel_store::{Processes, Result};
use jiff::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, FromRow};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::pool::{self, Bounded};

/// Apart from the learners' locks, whose numbers have 64 bits.
const TASKS: i32 = 0x0043_6172;
/// How often it is looked whether a task is ours still, and how long the server may take to say so.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const ANNOUNCE: &str = "WITH silent AS (DELETE FROM process WHERE id IN \
        (SELECT id FROM process WHERE until <= $6 AND id <> $1 FOR UPDATE SKIP LOCKED)) \
    INSERT INTO process (id, role, address, report, until) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (id) DO UPDATE SET address = excluded.address, report = excluded.report, until = excluded.until";
const WITHDRAW: &str = "DELETE FROM process WHERE id = $1";
const THERE: &str = "SELECT id, role, address, report FROM process WHERE role = $1 AND until > $2";

#[derive(FromRow)]
struct Row {
    id: Uuid,
    role: String,
    address: String,
    report: String,
}

impl PostgresStore {
    async fn take(&self, task: Task) -> Inner<Option<Lead>> {
        let mut connection = pool::apart(&self.connect).await?;
        let is_taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext($2))")
            .bind(TASKS)
            .bind(<&str>::from(task))
            .fetch_one(Bounded::new(&mut connection, ANSWERS_WITHIN))
            .await?;
        if !is_taken {
            return Ok(None);
        }
        let (lost, release) = (CancellationToken::new(), CancellationToken::new());
        let held = hold(connection, lost.clone(), release.clone());
        self.tracker.spawn(held);
        Ok(Some(Lead::new(lost, release)))
    }

    async fn say(&self, process: &Process, now: Timestamp, until: Timestamp) -> Inner<()> {
        sqlx::query(ANNOUNCE)
            .bind(process.id.0)
            .bind(<&str>::from(process.role))
            .bind(&process.address)
            .bind(&process.report)
            .bind(nanos(until))
            .bind(nanos(now))
            .execute(&self.turns)
            .await?;
        Ok(())
    }

    async fn there(&self, role: Role, now: Timestamp) -> Inner<Vec<Process>> {
        let rows: Vec<Row> = sqlx::query_as(THERE)
            .bind(<&str>::from(role))
            .bind(nanos(now))
            .fetch_all(&self.turns)
            .await?;
        let process = |row: Row| {
            Ok(Process {
                id: OwnerId(row.id),
                role: parsed(&row.role)?,
                address: row.address,
                report: row.report,
            })
        };
        rows.into_iter().map(process).collect()
    }
}

/// Keeps the connection until it is released, or until the server is not heard of.
async fn hold(mut connection: PgConnection, lost: CancellationToken, release: CancellationToken) {
    loop {
        tokio::select! {
            () = release.cancelled() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let heard = tokio::time::timeout(ANSWERS_WITHIN, connection.ping()).await;
        if !matches!(heard, Ok(Ok(()))) {
            lost.cancel();
            return;
        }
    }
    // When it cannot be said, the server hears the connection end.
    drop(connection.close().await);
}

#[async_trait::async_trait]
impl Processes for PostgresStore {
    async fn lead(&self, task: Task) -> Result<Option<Lead>> {
        self.take(task).await.map_err(during("taking a task"))
    }

    async fn announce(&self, process: &Process, now: Timestamp, until: Timestamp) -> Result<()> {
        self.say(process, now, until)
            .await
            .map_err(during("announcing a process"))
    }

    async fn withdraw(&self, id: OwnerId) -> Result<()> {
        let gone = async {
            sqlx::query(WITHDRAW)
                .bind(id.0)
                .execute(&self.turns)
                .await?;
            Inner::Ok(())
        };
        gone.await.map_err(during("withdrawing a process"))
    }

    async fn processes(&self, role: Role, now: Timestamp) -> Result<Vec<Process>> {
        self.there(role, now)
            .await
            .map_err(during("looking for processes"))
    }
}
