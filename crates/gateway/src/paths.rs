//! A router that can say which paths it has, as axum's cannot: the document of the API is held against them.

use axum::Router;
use axum::routing::MethodRouter;

use crate::gateway::Shared;

/// A router and its paths.
#[derive(Default)]
pub(crate) struct Paths {
    router: Router<Shared>,
    names: Vec<String>,
}

impl Paths {
    pub(crate) fn route(mut self, path: &str, methods: MethodRouter<Shared>) -> Self {
        self.names.push(path.to_owned());
        self.router = self.router.route(path, methods);
        self
    }

    /// Those of `inner` behind this prefix.
    pub(crate) fn nest(mut self, prefix: &str, inner: Self) -> Self {
        let names = inner.names.iter();
        let behind = names.map(|name| format!("{prefix}{}", name.trim_end_matches('/')));
        self.names.extend(behind);
        self.router = self.router.nest(prefix, inner.router);
        self
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self.router = self.router.merge(other.router);
        self
    }

    pub(crate) fn into_router(self) -> Router<Shared> {
        self.router
    }

    /// The paths, as a document writes them: a parameter is a parameter, also one of many segments.
    pub(crate) fn into_names(self) -> Vec<String> {
        let names = self.names.into_iter();
        names.map(|name| name.replace("{*", "{")).collect()
    }
}
