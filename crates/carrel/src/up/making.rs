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
    /// Notes what is not there yet.
    pub(super) fn begin(data_dir: &Path) -> Self {
        let absent = |path: PathBuf| Some(path).filter(|path| !path.exists());
        Self {
            data_dir: absent(data_dir.to_path_buf()),
            run_dir: absent(paths::run_dir(data_dir)),
        }
    }

    /// It has succeeded.
    pub(super) fn done(mut self) {
        self.data_dir = None;
        self.run_dir = None;
    }
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
