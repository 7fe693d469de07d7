//! A bucket on a server that speaks S3's protocol: how it is opened, what it is tried for, and how long a call may take.
//!
//! A `404` proves nothing by itself: a server answers so for a bucket that was removed, too. So a mark lies beside the
//! repositories, and an object is absent only where the mark is present.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrel_core::RepositoryId;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig, StaticCredentialProvider,
};

use super::keys::{KeyFile, S3Keys};
use super::wire::{Wire, passage};
use crate::Error;

/// The mark's name; no repository has it.
const MARK: &str = "carrel-storage";
const MARK_TEXT: &[u8] = b"carrel storage 1\n";

const CONNECT: Duration = Duration::from_secs(5);
/// After this no request is tried anew.
const RETRYING: Duration = Duration::from_secs(15);
const RETRIES: usize = 6;
/// What a call may take with all its tries, besides the passage of what it carries.
const CALL: Duration = Duration::from_mins(1);

/// Where a bucket is, and what opens it.
#[derive(Clone)]
pub struct S3 {
    /// The bucket's name.
    pub bucket: String,
    /// What all names in it begin with; may be empty.
    pub prefix: String,
    /// The server's URL; empty: Amazon's own of the region.
    pub endpoint: String,
    /// The region; servers that have none are told any.
    pub region: String,
    /// Whether the bucket stands in the path (`https://host/bucket`) and not in the host (`https://bucket.host`).
    pub path_style: bool,
    /// What opens it.
    pub keys: S3Keys,
    /// Certificates in PEM that are trusted besides the system's.
    pub authorities: Option<Vec<u8>>,
    /// Whether nothing need have been kept there yet: not when learners have snapshots.
    pub may_be_new: bool,
}

/// What is known of an opened bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Whether the server refuses to write over what is there when it is asked to.
    pub(super) conditional: bool,
    url: String,
    region: String,
    path_style: bool,
}

impl Bucket {
    #[cfg(test)]
    pub(super) fn stand_in(conditional: bool) -> Self {
        Self {
            conditional,
            url: String::new(),
            region: String::new(),
            path_style: true,
        }
    }

    pub(super) fn for_restic(&self, repository: RepositoryId) -> (String, Vec<String>) {
        let style = if self.path_style { "path" } else { "dns" };
        let place = format!("s3:{}/{repository}", self.url);
        let options = vec![
            format!("s3.bucket-lookup={style}"),
            format!("s3.region={}", self.region),
        ];
        (place, options)
    }
}

/// Opens a bucket: leaves the mark if it is not there, and tries what the server does with a write that must not replace.
pub(super) async fn open(options: &S3) -> Result<(Arc<dyn ObjectStore>, Bucket), Error> {
    let opening = || Error::storage("opening the bucket of snapshots");
    let store: Arc<dyn ObjectStore> = {
        let store = builder(options)
            .and_then(AmazonS3Builder::build)
            .map_err(opening())?;
        match options.prefix.trim_matches('/') {
            "" => Arc::new(store),
            prefix => Arc::new(PrefixStore::new(store, prefix)),
        }
    };
    let is_new = !within(0, marked(&*store)).await.map_err(opening())?;
    if is_new && !options.may_be_new {
        let told = "nothing was ever kept here, and learners have snapshots: name the bucket and prefix that hold them; where they \
            were copied to this place, copy the object 'carrel-storage' too";
        return Err(opening()(failed(told)));
    }
    if is_new {
        within(0, store.put(&mark(), mark_text()))
            .await
            .map_err(opening())?;
    }
    // A server that knows no conditions writes the same again.
    let create = PutOptions::from(PutMode::Create);
    let again = within(0, store.put_opts(&mark(), mark_text(), create)).await;
    let conditional = refused(again).map_err(opening())?;
    within(0, must_be_marked(&*store))
        .await
        .map_err(opening())?;
    if !conditional {
        tracing::warn!(
            "the server of snapshots ignores conditional writes: each object is looked for before it is written"
        );
    }
    let bucket = Bucket {
        conditional,
        url: url(options),
        region: options.region.clone(),
        path_style: options.path_style,
    };
    Ok((store, bucket))
}

/// Whether a write over what is there was refused. A server may also not know the condition at all.
fn refused<T>(written: Result<T, object_store::Error>) -> Result<bool, object_store::Error> {
    match written {
        Ok(_) => Ok(false),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(true),
        Err(error) if super::Trouble::of(&error) == super::Trouble::NotImplemented => Ok(false),
        Err(error) => Err(error),
    }
}

fn mark() -> Path {
    Path::from(MARK)
}

fn mark_text() -> object_store::PutPayload {
    Bytes::from_static(MARK_TEXT).into()
}

/// Whether the mark is there.
async fn marked(store: &dyn ObjectStore) -> Result<bool, object_store::Error> {
    match store.get(&mark()).await {
        Ok(found) => match found.bytes().await? {
            text if *text == *MARK_TEXT => Ok(true),
            _ => Err(failed("the object carrel-storage is not what Carrel wrote")),
        },
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An error unless the mark is there.
pub(super) async fn must_be_marked(store: &dyn ObjectStore) -> Result<(), object_store::Error> {
    if marked(store).await? {
        Ok(())
    } else {
        Err(failed("the bucket, or its object carrel-storage, is gone"))
    }
}

fn failed(told: &'static str) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: told.into(),
    }
}

/// Bounds a call with all its tries, by what it carries.
pub(super) async fn within<T>(
    bytes: u64,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    let late = |_| failed("the server took too long");
    let bound = CALL + passage(bytes);
    tokio::time::timeout(bound, call).await.map_err(late)?
}

pub(super) fn builder(options: &S3) -> Result<AmazonS3Builder, object_store::Error> {
    let mut http = ClientOptions::new()
        // Of a whole request; the wire has better bounds.
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_allow_http(options.endpoint.starts_with("http://"));
    if let Some(pem) = &options.authorities {
        for certificate in Certificate::from_pem_bundle(pem)? {
            http = http.with_root_certificate(certificate);
        }
    }
    let mut builder = match &options.keys {
        S3Keys::File(path) => {
            let file = KeyFile::new(path.clone());
            AmazonS3Builder::new().with_credentials(Arc::new(file))
        }
        S3Keys::Fixed(keys) => {
            let fixed = StaticCredentialProvider::new(AwsCredential::from(keys));
            AmazonS3Builder::new().with_credentials(Arc::new(fixed))
        }
        S3Keys::Workload => AmazonS3Builder::from_env(),
    };
    if !options.endpoint.is_empty() {
        builder = builder.with_endpoint(endpoint(options));
    }
    Ok(builder
        .with_http_connector(Wire)
        .with_bucket_name(&options.bucket)
        .with_region(&options.region)
        .with_virtual_hosted_style_request(!options.path_style)
        // Not every server removes many objects by one call.
        .with_disable_bulk_delete(true)
        .with_client_options(http)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.,
            },
            max_retries: RETRIES,
            retry_timeout: RETRYING,
        }))
}

/// The server's address as the client wants it: with the bucket where the host has to name it.
fn endpoint(options: &S3) -> String {
    let endpoint = options.endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !options.path_style => {
            format!("{scheme}://{}.{host}", options.bucket)
        }
        _ => endpoint.to_owned(),
    }
}

/// The place as restic names it, without the repository.
fn url(options: &S3) -> String {
    let server = match options.endpoint.trim_end_matches('/') {
        "" => format!("https://s3.{}.amazonaws.com", options.region),
        endpoint => endpoint.to_owned(),
    };
    let place = format!(
        "{server}/{}/{}",
        options.bucket,
        options.prefix.trim_matches('/')
    );
    place.trim_end_matches('/').to_owned()
}
