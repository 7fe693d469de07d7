//! `cargo xtask image [--out FILE] [--tag REFERENCE] [--ca FILE] [--dev]`: the container image, as an archive that `ctr images
//! import`, `docker load`, `podman load` and `skopeo` take. No daemon, and nothing from a registry: the image is one static
//! executable and the certificates of the authorities that this machine trusts. The same inputs give the same bytes.

mod archive;
mod executable;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cargo;
use archive::{File, Image};
pub(crate) use executable::Profile;

const USAGE: &str = "usage: cargo xtask image [--out FILE] [--tag REFERENCE] [--ca FILE] [--dev]";
/// Who processes are unless they are told otherwise: no row of a user is needed for a number.
const USER: &str = "10001:10001";
/// Where the image has the authorities' certificates; TLS libraries look there.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where machines have them: Debian, Fedora, Alpine.
const AUTHORITIES_HERE: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The archive.
    pub(crate) out: PathBuf,
    /// The image's name in it.
    pub(crate) tag: String,
    /// A file of authorities' certificates; else the machine's.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) profile: Profile,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            out: cargo::root().join("target/carrel-image.tar"),
            tag: format!("localhost/carrel:{}", env!("CARGO_PKG_VERSION")),
            authorities: None,
            profile: Profile::Release,
        }
    }
}

pub(crate) fn run() -> anyhow::Result<bool> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let wanted = read(&words)?;
    println!("== building the static executable");
    write(&wanted)?;
    println!("image {} in {}", wanted.tag, wanted.out.display());
    Ok(true)
}

/// The archive for tests, of the executable as tests build it, beside that.
pub(crate) fn for_tests() -> anyhow::Result<PathBuf> {
    let wanted = Wanted {
        profile: Profile::Dev,
        ..Wanted::default()
    };
    write(&wanted).map(|()| wanted.out)
}

/// Builds the executable and writes the archive. Cargo leaves the static executable where `carrel` of that profile lies: whoever
/// needs that one builds it afterwards.
pub(crate) fn write(wanted: &Wanted) -> anyhow::Result<()> {
    let executable = executable::build(wanted.profile)?;
    let authorities = match &wanted.authorities {
        Some(file) => file.clone(),
        None => authorities_here()?,
    };
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let image = Image {
        reference: &wanted.tag,
        version: env!("CARGO_PKG_VERSION"),
        user: USER,
        entrypoint: "/carrel",
        // What changes least comes first.
        layers: vec![
            vec![File::text(AUTHORITIES, read(&authorities)?)],
            vec![File::program("carrel", read(&executable)?)],
        ],
    };
    let bytes = archive::write(&image)?;
    if let Some(folder) = wanted.out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(&wanted.out, bytes).with_context(|| format!("writing {}", wanted.out.display()))
}

fn authorities_here() -> anyhow::Result<PathBuf> {
    let found = AUTHORITIES_HERE
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    found.context(
        "this machine has no certificates of authorities: install 'ca-certificates', or name a file by --ca",
    )
}

fn read(words: &[String]) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().context(USAGE);
        match word.as_str() {
            "--out" => wanted.out = value()?.into(),
            "--tag" => wanted.tag.clone_from(value()?),
            "--ca" => wanted.authorities = Some(value()?.into()),
            "--dev" => wanted.profile = Profile::Dev,
            _ => bail!(USAGE),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_goes_to_its_own_place() {
        let words = "--ca roots.pem --dev --tag school/carrel:1 --out here.tar";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let wanted = Wanted {
            out: "here.tar".into(),
            tag: "school/carrel:1".to_owned(),
            authorities: Some("roots.pem".into()),
            profile: Profile::Dev,
        };
        assert_eq!(read(&words).unwrap(), wanted);
        assert_eq!(read(&[]).unwrap(), Wanted::default());
        assert!(read(&words[..6]).is_err(), "--out without a file");
        assert!(read(&["--push".to_owned()]).is_err());
    }
}
