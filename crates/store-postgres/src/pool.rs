//! Connections to the database, so many at once; and a deadline for every answer, because a network can fall silent without an end.
//!
//! Not sqlx's own pool, for reasons in `docs/adr/0004-a-pool-with-deadlines.md`. Here a connection is given back by who got a whole
//! answer on it; any other is closed, and the server ends what it was doing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    Connection as _, Describe, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::fault::is_of_connection;

/// How long a free connection is waited for, and a new one.
const ACQUIRED_WITHIN: Duration = Duration::from_secs(5);
/// A connection is replaced after this, so that a fail-over or new credentials reach all.
const LIFETIME: Duration = Duration::from_mins(30);
/// One that nobody needed for so long is closed.
const UNUSED: Duration = Duration::from_mins(10);
/// How long a connection may lie idle before it is asked whether it is there.
const UNCHECKED: Duration = Duration::from_secs(1);

/// So many connections and no more. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connect: PgConnectOptions,
    patience: Duration,
    most: u32,
    places: Arc<Semaphore>,
    /// The one used last is last.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    born: Instant,
    since: Instant,
}

/// A connection in use. Dropped without [`Lease::give_back`], it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: PgConnection,
    born: Instant,
    pool: Pool,
    _place: OwnedSemaphorePermit,
}

/// A connection whose every statement has a deadline.
#[derive(Debug)]
pub(crate) struct Bounded<'c> {
    connection: &'c mut PgConnection,
    patience: Duration,
}

impl Pool {
    /// Connects when asked first. An answer is waited for so long and then given up.
    pub(crate) fn new(connect: &PgConnectOptions, most: u32, patience: Duration) -> Self {
        Self(Arc::new(Shared {
            connect: connect.clone(),
            patience,
            most,
            places: Arc::new(Semaphore::new(most as usize)),
            idle: Mutex::default(),
        }))
    }

    /// Waits for its turn, then for a connection.
    pub(crate) async fn acquire(&self) -> Result<Lease, Error> {
        let acquired = async {
            let place = Arc::clone(&self.0.places).acquire_owned().await;
            let place = place.map_err(|_closed| Error::PoolClosed)?;
            let (connection, born) = match self.usable().await {
                Some(idle) => (idle.connection, idle.born),
                None => (apart(&self.0.connect).await?, Instant::now()),
            };
            Ok(Lease {
                connection,
                born,
                pool: self.clone(),
                _place: place,
            })
        };
        let acquired = timeout(ACQUIRED_WITHIN, acquired).await;
        acquired.unwrap_or(Err(Error::PoolTimedOut))
    }

    /// Waits for what is under way and closes all connections; everything after is refused.
    pub(crate) async fn close(&self) {
        // Those who wait behind this are refused.
        let all = self.0.places.acquire_many(self.0.most).await;
        self.0.places.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for Idle { connection, .. } in idle {
            // The server hears it end either way.
            drop(timeout(UNCHECKED, connection.close()).await);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest idle connection that is there. When one is not, the others most likely are not either.
    async fn usable(&self) -> Option<Idle> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.born.elapsed() > LIFETIME {
                continue;
            }
            if idle.since.elapsed() <= UNCHECKED {
                return Some(idle);
            }
            if matches!(timeout(UNCHECKED, idle.connection.ping()).await, Ok(Ok(()))) {
                return Some(idle);
            }
            self.idle().clear();
        }
    }
}

impl Lease {
    /// For a statement.
    pub(crate) fn bounded(&mut self) -> Bounded<'_> {
        let patience = self.pool.0.patience;
        Bounded::new(&mut self.connection, patience)
    }

    /// For the next one, when everything on it was answered.
    pub(crate) fn give_back(self) {
        let Self {
            connection,
            born,
            pool,
            _place,
        } = self;
        let mut idle = pool.idle();
        if idle
            .first()
            .is_some_and(|first| first.since.elapsed() > UNUSED)
        {
            idle.remove(0);
        }
        idle.push(Idle {
            connection,
            born,
            since: Instant::now(),
        });
    }

    /// Gives it back after an answer; after a failure that is of the connection, nobody uses it again, nor those that lie idle.
    fn after<T>(self, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Err(error) if is_of_connection(error) => self.pool.idle().clear(),
            _ => self.give_back(),
        }
        answer
    }
}

/// A connection that is in no pool.
pub(crate) async fn apart(connect: &PgConnectOptions) -> Result<PgConnection, Error> {
    within(ACQUIRED_WITHIN, PgConnection::connect_with(connect)).await
}

impl<'c> Bounded<'c> {
    pub(crate) fn new(connection: &'c mut PgConnection, patience: Duration) -> Self {
        Self {
            connection,
            patience,
        }
    }
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let silent = |_elapsed| {
        let what = format!("no answer within {patience:?}");
        Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
    };
    timeout(patience, answer).await.map_err(silent)?
}

type Step = Either<PgQueryResult, PgRow>;
/// All of an answer at once: nothing of Carrel reads more than it keeps.
type Steps =
    stream::Iter<std::iter::Map<std::vec::IntoIter<Step>, fn(Step) -> Result<Step, Error>>>;

fn steps(all: Vec<Step>) -> Steps {
    stream::iter(all.into_iter().map(Ok as fn(Step) -> Result<Step, Error>))
}

impl<'c> Executor<'c> for Bounded<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let all = async move {
            let answer = self.connection.fetch_many(query).try_collect();
            within(self.patience, answer).await.map(steps)
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { within(self.patience, self.connection.fetch_optional(query)).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            within(self.patience, self.connection.prepare_with(sql, parameters)).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        Box::pin(async move { within(self.patience, self.connection.describe(sql)).await })
    }
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let all = async move {
            let mut lease = pool.acquire().await?;
            let answer = lease.bounded().fetch_many(query).try_collect().await;
            lease.after(answer).map(steps)
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let answer = lease.bounded().fetch_optional(query).await;
            lease.after(answer)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let answer = lease.bounded().prepare_with(sql, parameters).await;
            lease.after(answer)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let answer = lease.bounded().describe(sql).await;
            lease.after(answer)
        })
    }
}
