//! What the rules judge: the workspace's packages from `cargo metadata`, and its Rust files from the disk.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// The workspace as the rules see it.
pub(super) struct Workspace {
    pub(super) packages: Vec<Package>,
    pub(super) files: Vec<File>,
}

/// One of our packages.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) has_readme: bool,
    pub(super) dependencies: Vec<Dependency>,
}

/// An arrow out of a package.
pub(super) struct Dependency {
    pub(super) name: String,
    /// It is a package of this workspace.
    pub(super) ours: bool,
    pub(super) for_tests: bool,
}

/// A Rust file, its path counted from the workspace's root.
pub(super) struct File {
    pub(super) path: String,
    pub(super) lines: usize,
}

pub(super) fn read(root: &Path, metadata: &Value) -> anyhow::Result<Workspace> {
    let packages = metadata["packages"]
        .as_array()
        .context("metadata without packages")?;
    let mut workspace = Workspace {
        packages: Vec::new(),
        files: Vec::new(),
    };
    for package in packages {
        let manifest = package["manifest_path"]
            .as_str()
            .context("a package without a path")?;
        let folder = Path::new(manifest)
            .parent()
            .context("a manifest without a folder")?;
        workspace.packages.push(self::package(package, folder)?);
        collect(root, folder, &mut workspace.files)?;
    }
    Ok(workspace)
}

fn package(package: &Value, folder: &Path) -> anyhow::Result<Package> {
    let name = package["name"]
        .as_str()
        .context("a package without a name")?;
    let dependencies = package["dependencies"]
        .as_array()
        .context("no list of dependencies")?;
    let dependencies = dependencies.iter().map(|dependency| Dependency {
        name: dependency["name"].as_str().unwrap_or_default().to_owned(),
        ours: dependency["path"].is_string(),
        for_tests: dependency["kind"] == "dev",
    });
    let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
    Ok(Package {
        name: name.to_owned(),
        has_readme: !readme.trim().is_empty(),
        dependencies: dependencies.collect(),
    })
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> anyhow::Result<()> {
    let reading = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path();
        if entry.file_type().with_context(reading)?.is_dir() {
            if entry.file_name() != "target" {
                collect(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path);
            files.push(File {
                path: path.display().to_string(),
                lines: text.lines().count(),
            });
        }
    }
    Ok(())
}
