//! Builds the programs of a real Kubernetes from their pinned modules, each group once, into the user's cache.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use carrel_cluster_tools::{CHART, CLUSTER, COREDNS, GO_FLAGS, Group, NODE, Patch};
use serde_json::Value;

/// What a group's build may take, in seconds, with nothing in Go's caches.
const BOUND: &str = "1800";

/// Builds what is missing, and says what it found, did or could not do. `has_go` is whether Go is here.
pub(super) fn provide(has_go: bool) {
    for group in [CLUSTER, NODE, &[COREDNS], CHART].concat() {
        let began = Instant::now();
        match build(&group, has_go) {
            Ok(false) => println!("{}: found, of the pinned versions", group.name),
            Ok(true) => println!("{}: built in {} s", group.name, began.elapsed().as_secs()),
            Err(error) => println!("{}: {error:#}; its tests are skipped", group.name),
        }
    }
}

/// Builds a group unless it is there; whether it had to. Of two runs side by side one waits for the other.
pub(super) fn build(group: &Group, has_go: bool) -> anyhow::Result<bool> {
    let folder = group
        .folder()
        .context("no HOME, so no cache to build into")?;
    if group.is_built() {
        return Ok(false);
    }
    if !has_go {
        bail!("missing, and no Go to build it");
    }
    let tools = folder.parent().context("a folder in the cache")?;
    fs::create_dir_all(tools)?;
    let lock = File::create(tools.join(format!("{}.lock", group.name)))?;
    lock.lock().context("waiting for another build")?;
    if group.is_built() {
        return Ok(false);
    }
    println!("{}: missing; building it with Go, once", group.name);
    // What another run left when it was killed goes; what appears under the name is whole.
    let unfinished = tools.join(format!("{}.unfinished", group.name));
    remove(&unfinished)?;
    fs::create_dir(&unfinished)?;
    let source = unfinished.join("source");
    if let Some(patch) = &group.patch() {
        patched(group, patch, &source)?;
    }
    for program in group.programs {
        let to = unfinished.join(program.name);
        match program.package.split_once("//") {
            Some((module, path)) => go_copy(group, module, path, &to)?,
            None => go_build(group, program.package, &source, &to)?,
        }
    }
    if let Some(patch) = group.patch() {
        fs::rename(source.join(patch.data), unfinished.join(patch.data))?;
        remove(&source)?;
    }
    fs::rename(&unfinished, &folder)?;
    Ok(true)
}

/// Builds one program, as a release has it: no paths of this machine, no symbols, its version. A patched module is built from its copy.
fn go_build(group: &Group, package: &str, source: &Path, to: &Path) -> anyhow::Result<()> {
    let mut go = go(group);
    go.args(["build", "-ldflags", &group.linker_flags()])
        .args(["-tags", group.tags]);
    if group.patch().is_some() {
        go.arg(format!("-modfile={}", module_file(source).display()));
    }
    run(go.arg("-o").arg(to).arg(package), package)?;
    Ok(())
}

/// Copies a file of a module.
fn go_copy(group: &Group, module: &str, path: &str, to: &Path) -> anyhow::Result<()> {
    fs::copy(module_folder(group, module)?.join(path), to)
        .with_context(|| format!("copying {path} of {module}"))?;
    Ok(())
}

/// Copies a module with its change, and a module file that has the copy in its place.
fn patched(group: &Group, patch: &Patch, source: &Path) -> anyhow::Result<()> {
    let folder = module_folder(group, patch.module)?;
    let copy = Command::new("cp")
        .args(["-r", "--no-preserve=mode"])
        .args([folder.as_path(), source])
        .status()?;
    ensure!(copy.success(), "copying {}: {copy}", folder.display());
    let file = source.join(patch.file);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", patch.file))?;
    ensure!(
        text.matches(patch.from).count() == 1,
        "{} does not have {} once",
        patch.file,
        patch.from
    );
    fs::write(file, text.replace(patch.from, patch.to))?;
    let pinned = fs::read_to_string(group.module().join("go.mod"))?;
    let instead = format!("\nreplace {} => {}\n", patch.module, source.display());
    fs::write(module_file(source), pinned + &instead)?;
    fs::copy(
        group.module().join("go.sum"),
        module_file(source).with_extension("sum"),
    )?;
    Ok(())
}

/// The module file that stands for the pinned one while a copy is built.
fn module_file(source: &Path) -> PathBuf {
    source.join("patched.mod")
}

/// Where the files of a module are that is pinned.
fn module_folder(group: &Group, module: &str) -> anyhow::Result<PathBuf> {
    let said = run(go(group).args(["mod", "download", "-json", module]), module)?;
    let said: Value = serde_json::from_str(&said)?;
    let folder = said["Dir"].as_str().context("a module has a folder")?;
    Ok(folder.into())
}

/// Go, in the folder of a group's module.
fn go(group: &Group) -> Command {
    let mut go = Command::new("timeout");
    go.args([BOUND, "go"])
        .current_dir(group.module())
        .env("CGO_ENABLED", if group.tags.is_empty() { "0" } else { "1" })
        .env("GOFLAGS", GO_FLAGS)
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null());
    go
}

/// Runs Go for something: what it prints.
fn run(go: &mut Command, what: &str) -> anyhow::Result<String> {
    let output = go.output().context("starting Go")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        // The last of many lines say why.
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("go for {what}: {}\n{end}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
