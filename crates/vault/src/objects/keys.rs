//! What opens a bucket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use zeroize::Zeroizing;

/// What opens a bucket.
#[derive(Clone)]
pub enum S3Keys {
    /// A file of keys as Amazon's tools have it. It is read again for each request, so that keys can be replaced.
    File(PathBuf),
    /// Keys that stay.
    Fixed(S3Credentials),
    /// What the environment of a workload gives: variables, web identity token, container, instance.
    Workload,
}

/// Fixed keys of S3.
#[derive(Clone)]
pub struct S3Credentials {
    /// The key's name.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Zeroizing<String>,
    /// Of keys that are lent.
    pub session_token: Option<Zeroizing<String>>,
}

impl S3Credentials {
    /// Reads the section `default` of a file as Amazon's tools have it: `aws_access_key_id = …` and so on.
    pub fn parse(text: &str) -> Option<Self> {
        let mut section = "default";
        let (mut id, mut secret, mut token) = (None, None, None);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.trim();
            } else if let Some((key, value)) = line.split_once('=')
                && section == "default"
                && !line.starts_with(['#', ';'])
            {
                let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                match key.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value.map(Zeroizing::new),
                    "aws_session_token" => token = value.map(Zeroizing::new),
                    _ => {}
                }
            }
        }
        Some(Self {
            access_key_id: id?,
            secret_access_key: secret?,
            session_token: token,
        })
    }
}

impl From<&S3Credentials> for AwsCredential {
    fn from(keys: &S3Credentials) -> Self {
        Self {
            key_id: keys.access_key_id.clone(),
            secret_key: keys.secret_access_key.to_string(),
            token: keys.session_token.as_ref().map(|token| token.to_string()),
        }
    }
}

/// A file of keys.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    /// The last ones that served.
    last: Mutex<Option<Arc<AwsCredential>>>,
}

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let last = Mutex::default();
        Self { path, last }
    }
}

#[async_trait]
impl CredentialProvider for KeyFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let text = tokio::fs::read_to_string(&self.path).await;
        let text = text.map(Zeroizing::new);
        let read = text.ok().and_then(|text| S3Credentials::parse(&text));
        let read = read.as_ref().map(AwsCredential::from);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &*last) {
            (Some(new), Some(known)) if new == **known => Ok(Arc::clone(known)),
            (Some(new), _) => Ok(Arc::clone(last.insert(Arc::new(new)))),
            // Whoever replaces it may be in the middle of that.
            (None, Some(known)) => Ok(Arc::clone(known)),
            (None, None) => {
                let told = format!("no keys can be read from {}", self.path.display());
                Err(object_store::Error::Unauthenticated {
                    path: String::new(),
                    source: told.into(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn keys_that_are_replaced_in_their_file_serve_at_once_and_half_a_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let file = KeyFile::new(path.clone());
        file.get_credential().await.unwrap_err();
        let text = |id: &str| {
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = of {id}\n")
        };
        for id in ["first", "second"] {
            fs::write(&path, text(id)).unwrap();
            for half in [text(id), text("third")[..20].to_owned(), String::new()] {
                fs::write(&path, half).unwrap();
                let keys = file.get_credential().await.unwrap();
                assert_eq!(
                    (&*keys.key_id, &*keys.secret_key),
                    (id, &*format!("of {id}"))
                );
            }
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(file.get_credential().await.unwrap().key_id, "second");
    }
}
