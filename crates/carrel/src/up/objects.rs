//! Opens the storage of snapshots that the configuration names.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_store::Store;
use carrel_vault::{Objects, S3, S3Credentials, S3Keys};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::models::secret_in;
use crate::config::{self, ObjectsAt};
use crate::exit::{Failure, Kind};

/// So many learners are read at once.
const PAGE: u32 = 500;

/// Refuses settings that cannot be used; makes nothing.
pub(super) fn check(dir: &Path, objects: &config::Objects) -> anyhow::Result<()> {
    settings(dir, objects).map(drop)
}

/// Refuses a folder in the data folder, where several processes share their objects.
pub(super) fn refuse_own_folder(objects: &config::Objects) -> anyhow::Result<()> {
    match ObjectsAt::of(objects) {
        Ok(ObjectsAt::Folder(folder)) if !Path::new(folder).is_absolute() => {
            let message = "objects.url: vaults that are processes of their own share their objects: name a bucket \
                ('s3://…'), or a folder by its whole path ('file:/…')";
            Err(Failure::new(Kind::Usage, message).into())
        }
        _ => Ok(()),
    }
}

/// Opens it; relative files lie in the data folder.
pub(super) async fn open(
    dir: &Path,
    objects: &config::Objects,
    has_snapshots: bool,
) -> anyhow::Result<Objects> {
    match settings(dir, objects)? {
        Settings::Folder(folder) => Ok(Objects::local(folder)?),
        Settings::Bucket(bucket) => {
            let bucket = S3 {
                may_be_new: !has_snapshots,
                ..*bucket
            };
            Ok(Objects::s3(&bucket).await?)
        }
    }
}

/// Where snapshots are, with the keys to it.
enum Settings {
    Folder(PathBuf),
    Bucket(Box<S3>),
}

fn settings(dir: &Path, objects: &config::Objects) -> anyhow::Result<Settings> {
    let invalid =
        |(key, must): (&str, &str)| Failure::new(Kind::Usage, format!("objects.{key}: {must}"));
    let (bucket, prefix) = match ObjectsAt::of(objects).map_err(invalid)? {
        ObjectsAt::Folder(folder) => return Ok(Settings::Folder(dir.join(folder))),
        ObjectsAt::Bucket { bucket, prefix } => (bucket.to_owned(), prefix.to_owned()),
    };
    Ok(Settings::Bucket(Box::new(S3 {
        may_be_new: false,
        bucket,
        prefix,
        endpoint: objects.endpoint.clone(),
        region: objects.region.clone(),
        path_style: objects.path_style,
        keys: keys(dir, &objects.credentials_file)?,
        authorities: match objects.ca_file.as_str() {
            "" => None,
            file => {
                let file = dir.join(file);
                let read = std::fs::read(&file);
                Some(read.with_context(|| format!("objects.caFile: reading {}", file.display()))?)
            }
        },
    })))
}

fn keys(dir: &Path, place: &str) -> anyhow::Result<S3Keys> {
    if place.is_empty() {
        return Ok(S3Keys::Workload);
    }
    let text = secret_in(dir, "objects.credentialsFile", place)?;
    let keys = S3Credentials::parse(text.expose_secret()).ok_or_else(|| {
        let message = "objects.credentialsFile: it must have the section [default] with aws_access_key_id and \
            aws_secret_access_key";
        Failure::new(Kind::Usage, message)
    })?;
    Ok(if place.starts_with("env:") {
        S3Keys::Fixed(keys)
    } else {
        S3Keys::File(dir.join(place))
    })
}

/// Whether any learner has a snapshot.
pub(super) async fn has_snapshots(store: &dyn Store, now: Timestamp) -> anyhow::Result<bool> {
    let mut after = None;
    loop {
        let page = store.learners(after.as_ref(), PAGE, now).await?;
        if page.iter().any(|learner| learner.newest_snapshot.is_some()) {
            return Ok(true);
        }
        match page.last() {
            Some(last) => after = Some(last.id.clone()),
            None => return Ok(false),
        }
    }
}
