//! Where the programs of Kubernetes are.

use std::path::PathBuf;
use std::process::Command;

use carrel_cluster_tools::Group;

use crate::variables::unheard;

/// Whether these groups are built; else the reason in words for a skip.
pub(super) fn missing(groups: &[Group]) -> Option<String> {
    let missing: Vec<_> = groups.iter().filter(|group| !group.is_built()).collect();
    let names: Vec<_> = missing.iter().map(|group| group.name).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} is not there ('cargo xtask test' builds it where Go is installed)",
            names.join(", ")
        )
    })
}

/// The path of a program of a group that is built.
pub(super) fn path(group: &Group, name: &str) -> PathBuf {
    group.folder().unwrap_or_default().join(name)
}

/// A call of it, which hears nothing of the shell's keys.
pub(super) fn command(group: &Group, name: &str) -> Command {
    let mut command = Command::new(path(group, name));
    unheard(&mut command);
    command
}
