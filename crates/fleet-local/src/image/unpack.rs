//! One layer onto a root folder (OCI image specification, layer.md): first what it removes of the layers
//! below, then what it adds. Owners, extended attributes, set-id bits, devices and pipes are left out: all
//! files belong to the container's beholder, and nothing in an image gives a right.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::confined::{Confined, Place};
use crate::container::{IMAGE_FILE, IMAGE_FOLDERS};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How much an image may still unpack to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Unpacks one layer onto the folder, which is made if it is missing; answers what is left of the limits. Stops between two
/// entries when it is told to.
pub(super) fn unpack_layer(
    layer: &File,
    rootfs: &Path,
    limits: Limits,
    stop: &CancellationToken,
) -> Result<Limits, Error> {
    let failed = |source| Error::Disk {
        doing: "unpacking a layer".into(),
        source,
    };
    fs::create_dir_all(rootfs).map_err(failed)?;
    let root = Confined::to(rootfs).map_err(failed)?;
    let goes_on = || {
        let stopped = || Err(io::Error::other("nobody waits for it any more"));
        if stop.is_cancelled() {
            stopped()
        } else {
            Ok(())
        }
    };
    remove_lower(layer, &root, goes_on).map_err(failed)?;
    let mut left = limits;
    let mut archive = open(layer).map_err(failed)?;
    for entry in archive.entries().map_err(failed)? {
        goes_on().map_err(failed)?;
        let mut entry = entry.map_err(failed)?;
        left.entries = left.entries.checked_sub(1).ok_or_else(too_much)?;
        left.bytes = left.bytes.checked_sub(entry.size()).ok_or_else(too_much)?;
        let path = entry.path().map_err(failed)?.into_owned();
        add(&root, &path, &mut entry).map_err(|source| Error::Disk {
            doing: format!("unpacking {}", path.display()),
            source,
        })?;
    }
    Ok(left)
}

/// Makes the places where a container's own parts are mounted, real ones whatever the image has there.
pub(super) fn add_mount_points(rootfs: &Path) -> Result<(), Error> {
    let make = || {
        fs::create_dir_all(rootfs)?;
        fs::set_permissions(rootfs, fs::Permissions::from_mode(0o755))?;
        let root = Confined::to(rootfs)?;
        for folder in IMAGE_FOLDERS {
            // From the top, so that a link on the way is replaced and not followed.
            let ancestors: Vec<_> = Path::new(folder).ancestors().collect();
            for path in ancestors.into_iter().rev() {
                if let Some(place) = root.place(path, true)? {
                    place.make_folder(0o755)?;
                }
            }
        }
        match root.place(Path::new(IMAGE_FILE), true)? {
            Some(place) => place.make_file(0o444).map(drop),
            None => Ok(()),
        }
    };
    make().map_err(|source| Error::Disk {
        doing: "preparing an image's root".into(),
        source,
    })
}

fn too_much() -> Error {
    Error::Layer("the image is larger than images may be".into())
}

/// The archive in a layer, whatever its compression: told by its first bytes.
fn open(mut layer: &File) -> io::Result<Archive<Box<dyn Read + '_>>> {
    layer.rewind()?;
    let mut magic = [0; 4];
    let mut known = 0;
    while known < magic.len() {
        match layer.read(&mut magic[known..])? {
            0 => break,
            count => known += count,
        }
    }
    layer.rewind()?;
    let reader = BufReader::new(layer);
    Ok(Archive::new(match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    }))
}

fn remove_lower(
    layer: &File,
    root: &Confined,
    goes_on: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    for entry in open(layer)?.entries()? {
        goes_on()?;
        let path = entry?.path()?.into_owned();
        let Some(hidden) = path.file_name().and_then(whiteout) else {
            continue;
        };
        let Some(place) = root.place(&path, false)? else {
            continue;
        };
        match hidden {
            Whiteout::Folder => place.clear_folder()?,
            Whiteout::Name(name) => place.beside(name).clear()?,
        }
    }
    Ok(())
}

enum Whiteout<'a> {
    Folder,
    Name(&'a OsStr),
}

fn whiteout(name: &OsStr) -> Option<Whiteout<'_>> {
    let name = name.as_bytes();
    if name == OPAQUE {
        return Some(Whiteout::Folder);
    }
    match name.strip_prefix(WHITEOUT)? {
        b"" | b"." | b".." => None,
        hidden => Some(Whiteout::Name(OsStr::from_bytes(hidden))),
    }
}

fn add(root: &Confined, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    if path
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(WHITEOUT))
    {
        return Ok(());
    }
    let Some(place) = root.place(path, true)? else {
        return Ok(());
    };
    let mode = entry.header().mode()?;
    match entry.header().entry_type() {
        // The owner, which is us, must be able to add to it and to remove it.
        EntryType::Directory => place.make_folder(mode & 0o1777 | 0o700),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            write(&place, mode & 0o777 | 0o400, entry)
        }
        EntryType::Symlink => place.make_link(&link_target(entry)?),
        EntryType::Link => {
            let target = link_target(entry)?;
            let other = root.place(&target, false)?;
            let other = other.ok_or_else(|| io::Error::other("link to nothing"))?;
            place.make_same_as(&other)
        }
        _ => Ok(()),
    }
}

fn write(place: &Place, mode: u32, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let mut file = place.make_file(mode)?;
    io::copy(entry, &mut file)?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
    // Interpreters compare this time with that of their compiled files.
    file.set_modified(modified)
}

fn link_target(entry: &Entry<'_, impl Read>) -> io::Result<std::path::PathBuf> {
    let target = entry
        .link_name()?
        .ok_or_else(|| io::Error::other("link without a target"))?;
    Ok(target.into_owned())
}
