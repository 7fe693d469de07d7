//! What goes wrong inside, before the trait's method says what was being done.

use carrel_store::Error;
use carrel_store::adapter::column::Impossible;

/// What goes wrong inside.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database's own error.
    Database(sqlx::Error),
    /// A value that this crate could not have written, or an argument that makes no sense.
    Impossible(String),
}

/// What inner functions give.
pub(crate) type Inner<T> = Result<T, Fault>;

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Impossible> for Fault {
    fn from(Impossible(what): Impossible) -> Self {
        Self::Impossible(what)
    }
}

/// Turns a fault into the port's error, with what was being done.
pub(crate) fn during(doing: &'static str) -> impl FnOnce(Fault) -> Error {
    move |fault| match fault {
        Fault::Database(error) if is_passing(&error) => Error::Unavailable {
            doing,
            source: Box::new(error),
        },
        Fault::Database(error) => Error::Corrupt {
            doing,
            what: error.to_string(),
        },
        Fault::Impossible(what) => Error::Corrupt { doing, what },
    }
}

/// Whether trying again later may help: busy, locked, out of memory or disk, input and output.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<u32>().ok());
            // SQLITE_BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN; the low byte is the primary code.
            code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14))
        }
        _ => false,
    }
}
