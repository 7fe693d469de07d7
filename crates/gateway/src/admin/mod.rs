//! The operator's API, `/admin/v1`.

mod classes;
pub(crate) mod erase;
mod feed;
pub(crate) mod health;
mod learners;
mod operations;
mod query;
mod snapshots;
pub(crate) mod tokens;
mod usage;

pub use feed::EventPage;
pub use snapshots::{ResticEnvironment, SnapshotCheck};
pub use usage::UsageReport;

use axum::routing::{delete, get, post};

use crate::paths::Paths;

pub(crate) fn paths() -> Paths {
    let learner = Paths::default()
        .route(
            "/",
            get(learners::show)
                .patch(learners::change)
                .delete(erase::erase),
        )
        .route("/wake", post(operations::wake))
        .route("/sleep", post(operations::sleep))
        .route("/tokens", post(tokens::create).delete(tokens::revoke))
        .route("/links", post(tokens::link))
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/{snapshot_id}", delete(snapshots::remove))
        .route("/snapshots/{snapshot_id}/verify", post(snapshots::verify))
        .route("/restore", post(snapshots::restore))
        .route("/restic", post(snapshots::restic));
    Paths::default()
        .route(
            "/admin/v1/learners",
            get(learners::list).post(learners::create),
        )
        .nest("/admin/v1/learners/{id}", learner)
        .route("/admin/v1/usage", get(usage::usage))
        .route("/admin/v1/vault/rewrap", post(snapshots::rewrap))
        .route("/admin/v1/events", get(feed::events))
        .route("/admin/v1/classes", get(classes::list))
        .route(
            "/admin/v1/classes/{name}",
            get(classes::show).put(classes::put),
        )
}
