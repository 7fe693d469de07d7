//! Where durable state is kept, checked.

use super::Store;

/// A place for durable state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreAt<'a> {
    /// A file of SQLite; a relative one lies in the data folder.
    File(&'a str),
    /// A database of PostgreSQL, by its URL.
    Postgres(&'a str),
}

impl<'a> StoreAt<'a> {
    /// The place that a configuration names; else which key is wrong, and what it must be.
    pub(crate) fn of(store: &'a Store) -> Result<Self, (&'static str, &'static str)> {
        if let Some(file) = store.url.strip_prefix("sqlite:") {
            if !store.password_file.is_empty() {
                return Err(("passwordFile", "is for 'postgres://' alone"));
            }
            return Ok(Self::File(file));
        }
        let schemes = ["postgres://", "postgresql://"];
        let place = schemes
            .iter()
            .find_map(|scheme| store.url.strip_prefix(scheme));
        let Some(place) = place else {
            return Err((
                "url",
                "must be 'sqlite:FILE' or 'postgres://ROLE@HOST/DATABASE'",
            ));
        };
        let authority = place.split(['/', '?']).next().unwrap_or_default();
        let role = authority.rsplit_once('@').map_or("", |(role, _)| role);
        if role.contains(':') || place.contains("password=") {
            return Err((
                "url",
                "must hold no password: it stands in 'store.passwordFile'",
            ));
        }
        Ok(Self::Postgres(&store.url))
    }
}
