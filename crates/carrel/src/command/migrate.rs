//! `carrel migrate`: the store's schema, brought up to this program's version.

use crate::cli::At;
use crate::config;
use crate::output;
use crate::paths;
use crate::up;

pub(super) async fn run(at: At) -> anyhow::Result<()> {
    let data_dir = paths::data_dir(at.folder.data_dir.as_deref())?;
    let file = paths::config_file(at.config, &data_dir);
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    let what = up::migrate(&data_dir, &loaded.config.store).await?;
    output::talk(&format!(
        "{what} has the schema of carrel {}",
        env!("CARGO_PKG_VERSION")
    ));
    Ok(())
}
