//! Opening the database: where it is, how its identity is checked, pools, schema.

use std::net::IpAddr;
use std::time::Duration;

use carrel_store::Error as StoreError;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::PostgresStore;
use crate::hints::Hints;
use crate::pool::Pool;
use crate::{accept, access, claim, events, learner_row, schema, tls};

/// What the server says when it gives a statement up is here by then.
const ANSWER_COMES_WITHIN: Duration = Duration::from_secs(2);
const STATEMENTS_KEPT: usize = 256;
/// Sessions for statements of one learner, or of a few, look up each row that they need, and never read a whole table: a plan
/// that was made while it was empty would, until the server's next look at it.
pub(crate) const OF_FEW: [(&str, &str); 3] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// What every session is told.
const SETTINGS: [(&str, &str); 10] = [
    ("application_name", "carrel"),
    // What was answered is on the disk, whatever the server's default.
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    // A transaction that is left open holds up the feed and its learner.
    ("idle_in_transaction_session_timeout", "10s"),
    // A caller that went away while it waited ends what it began.
    ("client_connection_check_interval", "2s"),
    // A machine that vanished gives up its locks within half a minute.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // One plan for a statement, whatever its arguments: the one that is tested, and made once.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// Where the database is and how many connections are kept to it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://role@host:port/database?…` or a socket's folder as `?host=/run/postgresql`.
    pub url: String,
    /// The role's password, when it needs one.
    pub password: Option<SecretString>,
    /// Connections for taking messages.
    pub admission: u32,
    /// Connections for turns, money and the fleet.
    pub turns: u32,
    /// Connections for lists, the log and usage.
    pub reports: u32,
    /// How long taking a message may take; everything else may take three times as long. An answer that has not come a little
    /// later is not waited for: the network may have fallen silent.
    pub patience: Duration,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL makes no sense.
    #[error("the store's URL cannot be read")]
    Url(#[source] sqlx::Error),
    /// The server is too old.
    #[error("the store needs PostgreSQL 15 or later, and this is {found}")]
    Server {
        /// Its major version.
        found: i32,
    },
    /// A migration failed.
    #[error("the store's schema cannot be brought up to date")]
    Migration(#[source] MigrateError),
    /// It cannot be reached.
    #[error("the database at {at} cannot be reached")]
    Away {
        /// Host and port, or the socket's folder.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its schema is too old, or what it answers makes no sense.
    #[error(transparent)]
    Store(StoreError),
}

impl Error {
    /// With the place where it happened.
    pub(crate) fn at(connect: &PgConnectOptions, error: StoreError) -> Self {
        let StoreError::Unavailable { source, .. } = error else {
            return Self::Store(error);
        };
        let at = match connect.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", connect.get_host(), connect.get_port()),
        };
        Self::Away { at, source }
    }
}

impl Options {
    /// A database with a usual number of connections.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password: None,
            admission: 12,
            turns: 12,
            reports: 4,
            patience: Duration::from_secs(20),
        }
    }

    /// How to connect. Across a network the server proves who it is, unless the URL says `sslmode=disable`.
    pub(crate) fn connect_options(&self) -> Result<PgConnectOptions, Error> {
        let mut options: PgConnectOptions = self.url.parse().map_err(Error::Url)?;
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        let is_near = options.get_socket().is_some() || is_loopback(options.get_host());
        let is_disabled = matches!(options.get_ssl_mode(), PgSslMode::Disable);
        let wants_proof = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
        let options = if (is_near && !wants_proof) || is_disabled {
            options
        } else {
            tls::verified(options)
        };
        Ok(options
            .statement_cache_capacity(STATEMENTS_KEPT)
            .options(SETTINGS))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

impl PostgresStore {
    /// Opens the database. Its schema must be as new as this program: see [`migrate`](crate::migrate).
    ///
    /// # Errors
    /// When the URL, the server or the schema does not serve.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        let connect = options.connect_options()?;
        let pool = |connect: &PgConnectOptions, connections, patience: Duration| {
            let bounded = format!("{}ms", patience.as_millis());
            let connect = connect.clone();
            let connect = connect.options([("statement_timeout", bounded.as_str())]);
            Pool::new(&connect, connections, patience + ANSWER_COMES_WITHIN)
        };
        let of_few = connect.clone().options(OF_FEW);
        let turns = pool(&of_few, options.turns, options.patience * 3);
        let checked = schema::check(&turns).await;
        checked.map_err(|error| Error::at(&connect, error))?;
        let tracker = TaskTracker::new();
        let cancel = CancellationToken::new();
        let hints = Hints::start(&connect, &tracker, &cancel);
        let admission = pool(&of_few, options.admission, options.patience);
        let taken = accept::start(&admission, &hints, &tracker, &cancel);
        let claims = claim::start(&turns, &tracker, &cancel);
        let subjects = access::start(&admission, &tracker, &cancel);
        let rows = learner_row::start(&admission, &tracker, &cancel);
        let logs = events::start(&turns, &tracker, &cancel);
        Ok(Self {
            admission,
            taken,
            claims,
            slow: std::array::from_fn(|_| Mutex::default()),
            slowly: Semaphore::new(options.admission.div_ceil(3) as usize),
            subjects,
            rows,
            logs,
            patience: options.patience + ANSWER_COMES_WITHIN,
            turns,
            reports: pool(&connect, options.reports, options.patience * 3),
            connect,
            hints,
            tracker,
            _cancel: cancel.drop_guard(),
        })
    }

    /// Waits for what is under way and closes all connections; everything after is refused.
    pub async fn close(&self) {
        for pool in [&self.admission, &self.turns, &self.reports] {
            pool.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> PgSslMode {
        let options = Options::new(url).connect_options().expect(url);
        options.get_ssl_mode()
    }

    #[test]
    fn across_a_network_the_server_proves_who_it_is() {
        for far in [
            "postgres://carrel@db.example/carrel",
            "postgres://carrel@10.0.0.7/carrel?sslmode=prefer",
            "postgres://carrel@db.example/carrel?sslmode=require",
        ] {
            assert!(matches!(mode(far), PgSslMode::VerifyFull), "{far}");
        }
        let open = mode("postgres://carrel@db.example/carrel?sslmode=disable");
        assert!(matches!(open, PgSslMode::Disable));
        for near in ["postgres://carrel@127.0.0.1/c", "postgres:///c?host=/run"] {
            assert!(matches!(mode(near), PgSslMode::Prefer), "{near}");
        }
    }
}
