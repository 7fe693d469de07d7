//! What kind of trouble a storage has, and what people can do about it. A server's own words are in the error's source.

use std::error::Error;
use std::io;

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room.
    Full,
    /// The keys are wrong or may not do it.
    NotAllowed,
    /// No such bucket.
    NoBucket,
    /// The server asks for fewer requests.
    Throttled,
    /// The server does not know what it is asked for.
    NotImplemented,
    /// Cannot be reached, too slow, or failing.
    Away,
}

/// Codes of S3's errors and of those that servers like it add.
const CODES: [(&str, Trouble); 14] = [
    ("QuotaExceeded", Trouble::Full),
    ("InsufficientStorage", Trouble::Full),
    ("StorageFull", Trouble::Full),
    ("no space left on device", Trouble::Full),
    ("507 Insufficient", Trouble::Full),
    ("NoSuchBucket", Trouble::NoBucket),
    ("is gone", Trouble::NoBucket),
    ("SlowDown", Trouble::Throttled),
    ("TooManyRequests", Trouble::Throttled),
    ("429 Too Many", Trouble::Throttled),
    ("NotImplemented", Trouble::NotImplemented),
    ("501 Not Implemented", Trouble::NotImplemented),
    ("InvalidAccessKeyId", Trouble::NotAllowed),
    ("403 Forbidden", Trouble::NotAllowed),
];

impl Trouble {
    pub(crate) fn of(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            if let Some(found) = inner.downcast_ref::<io::Error>().and_then(of_system) {
                return found;
            }
            cause = inner.source();
        }
        // The type of a server's answer is the client's own secret; its words are not.
        let words = error.to_string();
        if let Some((_, trouble)) = CODES.iter().find(|(code, _)| words.contains(code)) {
            return *trouble;
        }
        match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::NotAllowed,
            _ => Self::Away,
        }
    }

    /// What people can do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Full => "it is full: make room or raise its quota",
            Self::NotAllowed => {
                "it refuses our keys: check them, and that they may get, put, delete and list"
            }
            Self::NoBucket => {
                "its bucket is not there: check 'objects.url', and restore the bucket"
            }
            Self::Throttled => "it asks for fewer requests: raise its limit, or wake fewer at once",
            Self::NotImplemented => "it does not know what it was asked for: use another server",
            Self::Away => "it is away, slow or failing: check it and the way to it",
        }
    }
}

fn of_system(error: &io::Error) -> Option<Trouble> {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Some(Trouble::Full),
        PermissionDenied => Some(Trouble::NotAllowed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &'static str) -> Trouble {
        Trouble::of(&object_store::Error::Generic {
            store: "S3",
            source: words.into(),
        })
    }

    #[test]
    fn what_a_server_says_is_told_as_what_to_do() {
        assert_eq!(
            said("status code: 503: <Code>SlowDown</Code>"),
            Trouble::Throttled
        );
        assert_eq!(
            said("status code: 403: <Code>QuotaExceeded</Code>"),
            Trouble::Full
        );
        assert_eq!(
            said("status code: 404: <Code>NoSuchBucket</Code>"),
            Trouble::NoBucket
        );
        assert_eq!(said("status code: 500: oops"), Trouble::Away);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = object_store::Error::Generic {
            store: "local",
            source: full.into(),
        };
        assert_eq!(Trouble::of(&error), Trouble::Full);
    }
}
