//! Store and snapshots, opened by a command. A file is opened only while no server runs on it.

use std::path::Path;

use carrel_store::SharedStore;
use carrel_vault::Objects;

use super::base::now;
use super::data::Data;
use super::objects;
use super::store::{Opened, at};
use crate::config::{Config, StoreAt};
use crate::exit::{Failure, Kind};

/// Store and snapshots, while a command looks at them.
pub(crate) struct Beside {
    store: SharedStore,
    objects: Objects,
    _held: Option<Data>,
}

impl Beside {
    /// Opens both.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::exit::Kind::Conflict) when a server runs on the file.
    pub(crate) async fn open(dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let held = match at(&config.store)? {
            StoreAt::File(file) => {
                refuse_absent(&dir.join(file))?;
                Some(Data::hold(dir)?)
            }
            StoreAt::Postgres(_) => {
                objects::refuse_own_folder(&config.objects)?;
                None
            }
        };
        let store = Opened::open(dir, &config.store).await?.shared();
        let has_snapshots = objects::has_snapshots(&*store, now()).await?;
        Ok(Self {
            objects: objects::open(dir, &config.objects, has_snapshots).await?,
            store,
            _held: held,
        })
    }

    /// What does not add up, a line each.
    pub(crate) async fn contradictions(&self) -> anyhow::Result<Vec<String>> {
        let found = self.store.contradictions().await?.into_iter();
        let mut lines: Vec<_> = found
            .map(|found| format!("{}: {}", found.learner, found.what))
            .collect();
        lines.extend(carrel_vault::compare(&self.store, &self.objects, now()).await?);
        Ok(lines)
    }

    /// Folds usage anew.
    pub(crate) async fn rebuild_usage(&self) -> anyhow::Result<()> {
        Ok(self.store.rebuild_usage().await?)
    }
}

/// A command that looks makes nothing: a new store would have nothing wrong.
fn refuse_absent(file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        return Ok(());
    }
    let message = format!(
        "there is no store at {}: name the folder that has one by --data-dir",
        file.display()
    );
    Err(Failure::new(Kind::NotFound, message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_without_a_store_is_refused_and_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = Beside::open(folder.path(), &Config::default()).await else {
            panic!("a store was made");
        };
        assert!(error.to_string().contains("--data-dir"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
