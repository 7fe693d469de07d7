//! The learner's repository in the vault, over the restic REST protocol (version 2), as `rustic_core` wants to see it.
//!
//! `rustic_core` swallows some errors of its backend. So the first failure is kept here, and the worker believes no outcome
//! while there is one.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use carrel_core::Epoch;
use carrel_protocol::{Endpoint, Problem};
use carrel_wire::Trust;
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, RANGE};
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};
use serde::Deserialize;

use super::error::Failure;
use super::request::Repository;
use super::uploads::Uploads;

const LIST_V2: &str = "application/vnd.x.restic.rest.v2";
/// How long nothing may come. Of a content this is the time of each piece: a large one over a slow line may take longer.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes a second of the slowest line to where the vault keeps what it is sent.
const SLOWEST: usize = 64 << 10;
/// Waits before a call is tried again; the vault may just be restarting.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
];

/// A repository behind the vault.
#[derive(Debug, Clone)]
pub(super) struct RestBackend {
    client: Client,
    base: String,
    token: Arc<str>,
    failure: Arc<Mutex<Option<Failure>>>,
    uploads: Uploads,
    /// The config, which is read where others only look for it, until it is asked for.
    config: Arc<Mutex<Option<Bytes>>>,
}

#[derive(Deserialize)]
struct Listed {
    name: Id,
    size: u32,
}

impl RestBackend {
    pub(super) fn new(repository: &Repository) -> Result<Self, Failure> {
        Self::patient(repository, CALL_TIMEOUT)
    }

    fn patient(repository: &Repository, timeout: Duration) -> Result<Self, Failure> {
        let builder = Client::builder().timeout(timeout).no_proxy();
        let builder = match &repository.endpoint {
            // Without certificates the client is built at once; the socket has no TLS.
            Endpoint::Unix(path) => builder.tls_certs_only([]).unix_socket(path.as_path()),
            Endpoint::Url(_) => {
                let trust = Trust::of(&repository.authorities);
                let trust = trust.map_err(|error| unusable(&error))?;
                builder.tls_backend_preconfigured((*trust.config()).clone())
            }
        };
        let base = repository.endpoint.base_url();
        let client = builder.build().map_err(|error| unusable(&error))?;
        Ok(Self {
            client,
            base: format!("{base}/restic/{}", repository.learner),
            token: repository.token.as_str().into(),
            failure: Arc::default(),
            uploads: Uploads::default(),
            config: Arc::default(),
        })
    }

    /// The first failure of any call, if one failed.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn config(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, file_type: FileType, id: &Id) -> String {
        match file_type {
            FileType::Config => format!("{}/config", self.base),
            other => format!("{}/{}/{}", self.base, other.dirname(), id.to_hex().as_str()),
        }
    }

    /// Sends, again after a failure that may pass; gives any answer that is not an error.
    fn send(&self, request: &dyn Fn() -> RequestBuilder) -> Result<Response, Failure> {
        let mut waits = RETRY_AFTER.iter();
        loop {
            let failure = match request().bearer_auth(&self.token).send() {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => refusal(answer),
                Err(error) => Failure::Storage(error.without_url().to_string()),
            };
            match (&failure, waits.next()) {
                (Failure::Storage(_), Some(wait)) => thread::sleep(*wait),
                _ => return Err(failure),
            }
        }
    }

    fn fail(&self, failure: Failure) -> Box<RusticError> {
        let text = format!("{failure:?}");
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
        RusticError::new(ErrorKind::Backend, text)
    }

    fn get(&self, url: &str, range: Option<(u32, u32)>) -> RusticResult<Bytes> {
        let request = || match range {
            Some((offset, length)) => self.client.get(url).header(
                RANGE,
                format!(
                    "bytes={offset}-{}",
                    u64::from(offset) + u64::from(length) - 1
                ),
            ),
            None => self.client.get(url),
        };
        let body = self
            .send(&request)
            .and_then(content)
            .map_err(|failure| self.fail(failure))?;
        match range {
            Some((_, length)) if body.len() != length as usize => Err(self.fail(Failure::Damaged(
                "a stored file is shorter than its index says".to_owned(),
            ))),
            _ => Ok(body),
        }
    }

    fn post(&self, url: &str, body: &Bytes) -> Result<(), Failure> {
        let passage = Duration::from_secs((body.len() / SLOWEST) as u64);
        let request = || {
            let request = self.client.post(url).timeout(CALL_TIMEOUT + passage);
            request.body(body.clone())
        };
        self.send(&request).map(drop)
    }

    /// Begins an upload. What failed is kept, and stops whatever is sent after it; so is a defect: what names the pack must not
    /// be sent without it.
    fn begin(&self, upload: impl FnOnce() -> Result<(), Failure> + Send + 'static) {
        let backend = self.clone();
        self.uploads.begin(move || {
            let sent = catch_unwind(AssertUnwindSafe(upload)).unwrap_or(Err(Failure::Crashed));
            if let Err(failure) = sent {
                backend.fail(failure);
            }
        });
    }
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    Failure::Storage(format!("no HTTP client: {error}"))
}

fn lost(error: impl std::fmt::Display) -> Failure {
    Failure::Storage(format!("an answer broke off: {error}"))
}

/// An answer's content, piece by piece.
fn content(mut answer: Response) -> Result<Bytes, Failure> {
    let mut content = Vec::new();
    answer.read_to_end(&mut content).map_err(lost)?;
    Ok(content.into())
}

fn refusal(answer: Response) -> Failure {
    let status = answer.status();
    match status {
        StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
            Failure::Damaged("a stored file is missing or too short".to_owned())
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Unauthorised,
        StatusCode::CONFLICT => {
            let problem = answer.json::<Problem>().ok();
            Failure::Fenced(problem.and_then(|problem| problem.fence).map(Epoch))
        }
        StatusCode::INSUFFICIENT_STORAGE => Failure::StorageFull,
        other => {
            let problem = answer.json::<Problem>();
            let why = problem.map_or(String::new(), |problem| format!(": {problem}"));
            Failure::Storage(format!("it answered {other}{why}"))
        }
    }
}

impl ReadBackend for RestBackend {
    fn location(&self) -> String {
        "vault".to_owned()
    }

    fn list_with_size(&self, file_type: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if file_type == FileType::Config {
            // Not HEAD: a refusal of that has no body that names the fence.
            let config = self.get(&self.url(file_type, &Id::default()), None)?;
            let size = u32::try_from(config.len()).unwrap_or(u32::MAX);
            *self.config() = Some(config);
            return Ok(vec![(Id::default(), size)]);
        }
        let url = format!("{}/{}/", self.base, file_type.dirname());
        let listed = self
            .send(&|| self.client.get(&url).header(ACCEPT, LIST_V2))
            .and_then(|answer| answer.json::<Vec<Listed>>().map_err(lost))
            .map_err(|failure| self.fail(failure))?;
        Ok(listed
            .into_iter()
            .map(|file| (file.name, file.size))
            .collect())
    }

    fn read_full(&self, file_type: FileType, id: &Id) -> RusticResult<Bytes> {
        if file_type == FileType::Config
            && let Some(config) = self.config().take()
        {
            return Ok(config);
        }
        self.get(&self.url(file_type, id), None)
    }

    fn read_partial(
        &self,
        file_type: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        self.get(&self.url(file_type, id), Some((offset, length)))
    }

    fn warmup_path(&self, file_type: FileType, id: &Id) -> String {
        self.url(file_type, id)
    }
}

impl WriteBackend for RestBackend {
    fn write_bytes(
        &self,
        file_type: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        let url = self.url(file_type, id);
        let mut body = Vec::with_capacity(content.size());
        content
            .reader()
            .read_to_end(&mut body)
            .expect("bytes in memory can be read");
        let is_pack = file_type == FileType::Pack;
        if !is_pack {
            // It may name any pack before it.
            self.uploads.settle();
        }
        if let Some(failure) = self.failure() {
            return Err(self.fail(failure));
        }
        let body = Bytes::from(body);
        if !is_pack {
            let sent = self.post(&url, &body);
            return sent.map_err(|failure| self.fail(failure));
        }
        let backend = self.clone();
        self.begin(move || backend.post(&url, &body));
        Ok(())
    }

    fn remove(&self, _: FileType, _: &Id, _cacheable: bool) -> RusticResult<()> {
        Err(RusticError::new(
            ErrorKind::AppendOnly,
            "a pod removes nothing",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use carrel_protocol::problem::Code;
    use carrel_protocol::vault::DataKey;

    use super::*;

    fn backend(url: String) -> RestBackend {
        let repository = Repository {
            endpoint: Endpoint::Url(url),
            authorities: String::new(),
            learner: "ada".parse().unwrap(),
            token: String::new(),
            key: DataKey {
                encrypt: String::new(),
                mac_k: String::new(),
                mac_r: String::new(),
            },
        };
        RestBackend::patient(&repository, Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn what_names_a_pack_is_not_sent_when_its_upload_ended_by_a_defect() {
        let backend = backend("http://127.0.0.1:1".to_owned());
        backend.begin(|| std::panic::resume_unwind(Box::new("a defect")));
        let content = Bytes::new().into();
        let refused = backend.write_bytes(FileType::Index, &Id::default(), false, content);
        refused.unwrap_err();
        assert!(matches!(backend.failure(), Some(Failure::Crashed)));
    }

    #[test]
    fn a_refusal_says_why_where_the_vault_did() {
        let problem = Problem::new(Code::Unavailable, "too much is being sent");
        let told = serde_json::to_string(&problem).unwrap();
        let title = &problem.title;
        let why = format!("it answered 503 Service Unavailable: {title}: too much is being sent");
        for (body, said) in [
            (told.as_str(), why.as_str()),
            ("", "it answered 503 Service Unavailable"),
        ] {
            let answer = http::Response::builder().status(503).body(body.to_owned());
            let failure = refusal(answer.unwrap().into());
            assert!(
                matches!(&failure, Failure::Storage(what) if what == said),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_content_that_goes_on_may_take_longer_than_a_call() {
        const PIECES: usize = 30;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {PIECES}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            for _ in 0..PIECES {
                thread::sleep(Duration::from_millis(50));
                client.write_all(b"x").unwrap();
            }
        });
        let backend = backend(url);
        let content = backend.read_full(FileType::Pack, &Id::default()).unwrap();
        assert_eq!(content.len(), PIECES);
        server.join().unwrap();
    }
}
