//! What a start makes before it succeeds. Whatever ends it early, the run folder goes again, and that a data folder was made is
//! said: it stays, and the next start goes on with it.

use std::path::{Path, PathBuf};

use crate::output;
use crate::paths;

/// A start under way: what it is about to make.
pub(super) struct Making {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
}

impl Making {
    /// Notes whether the data folder is there yet.
    pub(super) fn begin(data_dir: &Path) -> Self {
        Self {
            data_dir: absent(data_dir.to_path_buf()),
            run_dir: None,
        }
    }

    /// Notes the run folder, once the data folder is held: until then it is made by whoever else holds it.
    pub(super) fn hold(&mut self, data_dir: &Path) {
        self.run_dir = absent(paths::run_dir(data_dir));
    }

    /// It has succeeded.
    pub(super) fn done(mut self) {
        self.data_dir = None;
        self.run_dir = None;
    }
}

fn absent(path: PathBuf) -> Option<PathBuf> {
    Some(path).filter(|path| !path.exists())
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(folder) = &self.run_dir {
            // The next start would clear it as well.
            let _: std::io::Result<()> = std::fs::remove_dir_all(folder);
        }
        if let Some(folder) = self.data_dir.as_ref().filter(|folder| folder.exists()) {
            output::talk(&format!(
                "carrel: {} was made before the start failed, and stays: the next start goes on with it",
                folder.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::data::Data;

    #[test]
    fn of_two_starts_at_once_the_one_that_fails_leaves_the_run_folder_to_the_other() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("data");
        let [mut one, mut other] = [(); 2].map(|()| Data::hold(&folder).unwrap());
        let [mut ones, others] = [(); 2].map(|()| Making::begin(&folder));
        one.make().unwrap();
        ones.hold(&folder);
        let run_dir = paths::make_run_dir(&folder).unwrap();
        other.make().unwrap_err();
        drop(others);
        assert!(run_dir.exists());
        drop(ones);
        assert!(!run_dir.exists());
    }
}
