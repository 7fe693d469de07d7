//! Where snapshots are kept, checked.

use super::Objects;

/// A place for snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectsAt<'a> {
    /// A folder; a relative one lies in the data folder.
    Folder(&'a str),
    /// A bucket and what all names in it begin with.
    Bucket { bucket: &'a str, prefix: &'a str },
}

impl<'a> ObjectsAt<'a> {
    /// The place that a configuration names; else which key is wrong, and what it must be.
    pub(crate) fn of(objects: &'a Objects) -> Result<Self, (&'static str, &'static str)> {
        if let Some(folder) = objects.url.strip_prefix("file:") {
            let of_buckets = [
                ("endpoint", !objects.endpoint.is_empty()),
                ("pathStyle", objects.path_style),
                ("credentialsFile", !objects.credentials_file.is_empty()),
                ("caFile", !objects.ca_file.is_empty()),
            ];
            return match of_buckets.into_iter().find(|(_, set)| *set) {
                Some((key, _)) => Err((key, "is for 's3://' alone")),
                None => Ok(Self::Folder(folder)),
            };
        }
        let place = objects.url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?']) {
            return Err(("url", "must be 'file:FOLDER' or 's3://BUCKET/PREFIX'"));
        }
        if objects.region.is_empty() {
            return Err((
                "region",
                "must not be empty; 'us-east-1' where a server has none",
            ));
        }
        let endpoint = objects.endpoint.as_str();
        if !endpoint.is_empty()
            && !["https://", "http://"]
                .iter()
                .any(|s| endpoint.starts_with(s))
        {
            return Err(("endpoint", "must begin with 'https://' or 'http://'"));
        }
        if endpoint.contains('@') {
            return Err((
                "endpoint",
                "must hold no keys: they stand in 'objects.credentialsFile'",
            ));
        }
        Ok(Self::Bucket { bucket, prefix })
    }
}
