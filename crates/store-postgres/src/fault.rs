//! What goes wrong inside, before the trait's method says what was being done.

use std::sync::Arc;

use carrel_store::Error;
use carrel_store::adapter::column::Impossible;

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What goes wrong inside.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database's own error.
    Database(sqlx::Error),
    /// The same, of a statement that was many callers'.
    OfMany(Arc<sqlx::Error>),
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

impl Fault {
    /// Whether a key that must be unique was there already.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// Turns a fault into the port's error, with what was being done.
pub(crate) fn during(doing: &'static str) -> impl FnOnce(Fault) -> Error {
    move |fault| match fault {
        Fault::Database(error) if is_passing(&error) => Error::Unavailable {
            doing,
            source: cause(error),
        },
        Fault::OfMany(error) if is_passing(&error) => Error::Unavailable {
            doing,
            source: Box::new(error),
        },
        Fault::Database(error) => lasting(doing, &error),
        Fault::OfMany(error) => lasting(doing, &error),
        Fault::Impossible(what) => Error::Corrupt { doing, what },
    }
}

fn lasting(doing: &'static str, error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(error) if error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) => {
            let what = error.message().to_owned();
            Error::NotAllowed { doing, what }
        }
        error => Error::Corrupt {
            doing,
            what: error.to_string(),
        },
    }
}

/// What went wrong itself: sqlx says it once more in words of its own.
fn cause(error: sqlx::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        sqlx::Error::Io(error) => Box::new(error),
        sqlx::Error::Tls(error) => error,
        sqlx::Error::Database(error) => error.into_error(),
        error => Box::new(error),
    }
}

/// Whether trying again later may help.
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing_state(&code)),
        error => is_of_connection(error),
    }
}

/// Whether its connection serves no more, and others to the same server may not either.
pub(crate) fn is_of_connection(error: &sqlx::Error) -> bool {
    match error {
        // A stream that ends in the middle of an answer is a protocol error to sqlx.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| ends_sessions(&code)),
        _ => false,
    }
}

/// By SQLSTATE: the connection, the server that shuts down or has crashed, a session that was idle too long, a read-only standby
/// after a fail-over.
fn ends_sessions(code: &str) -> bool {
    code.starts_with("08")
        || matches!(
            code,
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006"
        )
}

/// By SQLSTATE (PostgreSQL's appendix A): the connection, who may log in just now, a read-only standby, a rollback by
/// deadlock or serialization, resources, a lock or an operator that was in the way (or has shut the database), a failed disk, a snapshot too old.
fn is_passing_state(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "08" | "28" | "40" | "53" | "57" | "58")
        || matches!(
            code,
            "25006" | "25P02" | "25P03" | "55000" | "55P03" | "72000"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_is_given_up_ends_no_session() {
        for of_connection in ["08006", "57P01", "25006"] {
            assert!(ends_sessions(of_connection), "{of_connection}");
        }
        for of_statement in ["57014", "40P01", "55P03", "53200"] {
            assert!(!ends_sessions(of_statement), "{of_statement}");
        }
    }

    #[test]
    fn what_passes_is_told_from_what_a_person_must_see() {
        for passing in [
            "08006", "40001", "40P01", "53300", "55P03", "57014", "57P01", "57P03", "25P03",
        ] {
            assert!(is_passing_state(passing), "{passing}");
        }
        for lasting in [
            "22021", "23505", "23514", "42501", "42P01", "42703", "XX001",
        ] {
            assert!(!is_passing_state(lasting), "{lasting}");
        }
    }
}
