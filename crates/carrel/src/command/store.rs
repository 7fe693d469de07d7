//! `carrel store`: the store itself, opened as a server opens it.

use crate::cli::{At, ReadModel, StoreCommand};
use crate::config;
use crate::exit::{Failure, Kind};
use crate::output;
use crate::paths;
use crate::up::Beside;

pub(super) async fn run(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Check(at) => check(at).await,
        StoreCommand::Rebuild {
            what: ReadModel::Usage,
            at,
        } => {
            let store = open(at).await?;
            store.rebuild_usage().await.map_err(of_another_role)?;
            output::talk("usage is folded anew from the events");
            Ok(())
        }
    }
}

async fn check(at: At) -> anyhow::Result<()> {
    let store = open(at).await?;
    let found = store.contradictions().await.map_err(of_another_role)?;
    for line in &found {
        output::line(line)?;
    }
    if found.is_empty() {
        output::talk("everything that is stored adds up");
        return Ok(());
    }
    let message = format!("{} things do not add up", found.len());
    Err(Failure::new(Kind::Failed, message).into())
}

/// The roles of the database that run Carrel's own roles may not read everything.
fn of_another_role(error: anyhow::Error) -> anyhow::Error {
    let not_allowed = error.chain().any(|cause| {
        let cause = cause.downcast_ref();
        matches!(cause, Some(carrel_store::Error::NotAllowed { .. }))
    });
    if !not_allowed {
        return error;
    }
    let message = format!(
        "{error:#}: run it as the role that owns the tables, as in CARREL_STORE_URL=postgres://carrel_migrate@HOST/DATABASE"
    );
    Failure::new(Kind::NotAllowed, message).into()
}

async fn open(at: At) -> anyhow::Result<Beside> {
    let data_dir = paths::data_dir(at.folder.data_dir.as_deref())?;
    let file = paths::config_file(at.config, &data_dir);
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    Beside::open(&data_dir, &loaded.config).await
}
