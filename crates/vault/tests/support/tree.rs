//! Workspaces: made, changed, compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// What a tree holds: kind, mode and content by path.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    collect(root, Path::new(""), &mut found);
    found
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let path = folder.join(entry.expect("an entry").file_name());
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).expect("metadata");
        let mode = metadata.permissions().mode() & 0o7777;
        let seen = if metadata.is_dir() {
            collect(root, &path, found);
            format!("folder {mode:o}")
        } else if metadata.is_symlink() {
            let target = fs::read_link(&full).expect("a link");
            format!("link {:?}", target.as_os_str().as_bytes())
        } else {
            let content = fs::read(&full).expect("content");
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
            format!("file {mode:o} {} {:?}", content.len(), hash)
        };
        found.insert(path, seen);
    }
}

/// A workspace of about ten megabytes in some three hundred files: notes, a database, pictures.
pub(crate) fn ten_megabytes(root: &Path, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for folder in 0..20 {
        let folder = root.join(format!("unit-{folder}"));
        fs::create_dir_all(&folder).expect("a folder");
        for file in 0..16 {
            let length = random.random_range(500..40_000);
            fs::write(
                folder.join(format!("note-{file}.md")),
                words(&mut random, length),
            )
            .expect("written");
        }
    }
    fs::write(root.join("memory.db"), noise(&mut random, 4 << 20)).expect("written");
    fs::write(root.join("picture.jpg"), noise(&mut random, 2 << 20)).expect("written");
}

/// A turn's small change.
pub(crate) fn one_turn(root: &Path, turn: u64) {
    let mut random = StdRng::seed_from_u64(turn);
    let transcript = root.join("transcript.jsonl");
    let mut text = fs::read(&transcript).unwrap_or_default();
    text.extend(words(&mut random, 3000));
    fs::write(transcript, text).expect("written");
    fs::write(root.join("unit-3/note-3.md"), words(&mut random, 2000)).expect("written");
}

pub(crate) fn noise(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes);
    bytes
}

fn words(random: &mut StdRng, length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "add", "seven", "learn", "why", "because", "nine", "river", "sum",
    ];
    let mut text = String::new();
    while text.len() < length {
        text.push_str(WORDS[random.random_range(0..WORDS.len())]);
        text.push_str(&random.random_range(0..1000).to_string());
        text.push(' ');
    }
    text.into_bytes()
}

/// Every file under a folder.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.expect("cp runs").success());
}
