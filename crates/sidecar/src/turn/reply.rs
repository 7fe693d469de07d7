//! The files of a reply, read out of the frozen workspace.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrel_core::event::ReplyFile;
use carrel_core::turn::FailureCode;
use carrel_protocol::sidecar::AttachmentData;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use super::commit::Uncommitted;
use super::outcome::ReplyPath;
use crate::options::SidecarOptions;

/// The most bytes of a reply's files together.
const BYTES: u64 = 8 << 20;

/// Reads them; one that cannot be read fails the turn.
pub(super) fn read(
    options: &SidecarOptions,
    paths: &[ReplyPath],
) -> Result<(Vec<ReplyFile>, Vec<AttachmentData>), Uncommitted> {
    let (mut files, mut data) = (Vec::new(), Vec::new());
    let mut room = BYTES;
    for wanted in paths {
        let seen = options
            .agent_workspace
            .as_ref()
            .unwrap_or(&options.workspace);
        let path = Path::new(&wanted.path);
        let path = path.strip_prefix(seen).unwrap_or(path);
        let bytes =
            read_one(&options.workspace, path, room).map_err(|error| Uncommitted::Refused {
                code: FailureCode::AgentFailed,
                detail: "A file of the answer could not be read.".to_owned(),
                retryable: true,
                reason: format!("a file of the reply: {error}"),
            })?;
        room -= bytes.len() as u64;
        let name = file_name(&wanted.name);
        files.push(ReplyFile {
            name: name.clone(),
            media_type: wanted.media_type.clone(),
            size_bytes: bytes.len() as u64,
        });
        data.push(AttachmentData {
            name,
            media_type: wanted.media_type.clone(),
            data: STANDARD.encode(&bytes),
        });
    }
    Ok((files, data))
}

fn read_one(workspace: &Path, path: &Path, room: u64) -> io::Result<Vec<u8>> {
    let root = openat(
        CWD,
        workspace,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root, path, flags, Mode::empty(), within)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(room + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > room {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// What a client may save it as.
fn file_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
    if name.is_empty() {
        "file".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_the_workspace_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("w");
        std::fs::create_dir_all(root.join("d")).expect("made");
        std::fs::write(root.join("d/a"), "12345").expect("written");
        std::fs::write(folder.path().join("secret"), "s").expect("written");
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("linked");
        std::os::unix::fs::symlink("d", root.join("inner")).expect("linked");
        let read = |path: &str, room| read_one(&root, Path::new(path), room);
        assert_eq!(read("d/a", 5).expect("read"), b"12345");
        for bad in [
            "../secret",
            "link",
            "inner/a",
            "d",
            "missing",
            "/etc/hostname",
        ] {
            assert!(read(bad, 5).is_err(), "{bad} was read");
        }
        assert!(
            read("d/a", 4).is_err(),
            "more was read than there is room for"
        );
    }
}
