//! The restic REST protocol, version 2, append-only: `restic/doc/REST_backend.rst`.

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use carrel_core::RepositoryId;
use carrel_protocol::problem::{Code, Problem};
use object_store::GetRange;
use serde::Serialize;

use super::intake::discard;
use super::{LearnerPath, Refusal, reach};
use crate::objects::{FileKind, Trouble, is_name};
use crate::{Error, Vault};

const LIST_V1: &str = "application/vnd.x.restic.rest.v1";
const LIST_V2: &str = "application/vnd.x.restic.rest.v2";

#[derive(Serialize)]
struct Listed {
    name: String,
    size: u64,
}

/// `POST /restic/{learner}/?create=true`: it is made with the key.
pub(super) async fn create(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let reach = reach(&vault, &headers, &learner).await?;
    vault.keyed(&reach.claims.sub, reach.repository).await?;
    Ok(StatusCode::OK)
}

/// What a pod may not do: change or remove what is there.
pub(super) async fn refuse(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    reach(&vault, &headers, &learner).await?;
    Err(append_only().into())
}

fn append_only() -> Problem {
    Problem::new(Code::Forbidden, "a pod only appends")
}

/// `GET` and `HEAD /restic/{learner}/config`
pub(super) async fn config(
    State(vault): State<Vault>,
    Path(learner): LearnerPath,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    send(&vault, &learner, FileKind::Config, "", &method, &headers).await
}

/// `GET` and `HEAD /restic/{learner}/{kind}/{name}`
pub(super) async fn read(
    State(vault): State<Vault>,
    Path((learner, kind, name)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kind = file(&kind, &name)?;
    send(&vault, &learner, kind, &name, &method, &headers).await
}

async fn send(
    vault: &Vault,
    learner: &str,
    kind: FileKind,
    name: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let repository = reach(vault, headers, learner).await?.repository;
    let absent = || StatusCode::NOT_FOUND.into_response();
    let length = |bytes: u64| (CONTENT_LENGTH, HeaderValue::from(bytes));
    let octets = (
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if method == Method::HEAD {
        let size = vault.objects().size(repository, kind, name).await;
        let Some(size) = size.map_err(Error::storage("reading an object"))? else {
            return Ok(absent());
        };
        return Ok(([length(size), octets], Body::empty()).into_response());
    }
    let (first, wanted) = match headers.get(RANGE).map(range) {
        None => (0, None),
        Some(Some((first, range))) => (first, Some(range)),
        Some(None) => return Ok(StatusCode::RANGE_NOT_SATISFIABLE.into_response()),
    };
    let is_part = wanted.is_some();
    let found = vault.objects().get(repository, kind, name, wanted).await;
    let found = match found {
        // A range past the end is an error of the storage by its type, and not by its meaning.
        Err(error) if is_part => {
            let size = vault.objects().size(repository, kind, name).await;
            match size.map_err(Error::storage("reading an object"))? {
                Some(size) if first < size => Err(error),
                Some(_) => return Ok(StatusCode::RANGE_NOT_SATISFIABLE.into_response()),
                None => Ok(None),
            }
        }
        found => found,
    };
    let found = found.map_err(Error::storage("reading an object"))?;
    let Some(found) = found else {
        return Ok(absent());
    };
    let (given, size) = (found.range.clone(), found.meta.size);
    let body = Body::from_stream(found.into_stream());
    let length = length(given.end - given.start);
    if !is_part {
        return Ok(([length, octets], body).into_response());
    }
    let place = format!("bytes {}-{}/{size}", given.start, given.end - 1);
    let place: (HeaderName, HeaderValue) = (
        CONTENT_RANGE,
        HeaderValue::try_from(place).expect("digits are a header's value"),
    );
    Ok((StatusCode::PARTIAL_CONTENT, [length, octets, place], body).into_response())
}

/// A single range of bytes with its first one (RFC 9110 §14.1.2); `None` when it is none.
fn range(value: &HeaderValue) -> Option<(u64, GetRange)> {
    let (first, last) = value
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let first: u64 = first.parse().ok()?;
    if last.is_empty() {
        return Some((first, GetRange::Offset(first)));
    }
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    (first < end).then_some((first, GetRange::Bounded(first..end)))
}

/// `GET /restic/{learner}/{kind}/`
pub(super) async fn list(
    State(vault): State<Vault>,
    Path((learner, kind)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kind = folder(&kind)?;
    let repository = reach(&vault, &headers, &learner).await?.repository;
    let listed = vault
        .objects()
        .list(repository, kind)
        .await
        .map_err(Error::storage("listing objects"))?;
    let v2 = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(LIST_V2));
    Ok(if v2 {
        let files: Vec<_> = listed
            .into_iter()
            .map(|(name, meta)| Listed {
                name,
                size: meta.size,
            })
            .collect();
        ([(CONTENT_TYPE, LIST_V2)], Json(files)).into_response()
    } else {
        let names: Vec<_> = listed.into_iter().map(|(name, _)| name).collect();
        ([(CONTENT_TYPE, LIST_V1)], Json(names)).into_response()
    })
}

/// `POST /restic/{learner}/{kind}/{name}`: durable when it answers; the same again is fine.
pub(super) async fn write(
    State(vault): State<Vault>,
    Path((learner, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (kind, repository) = match appends(&vault, &headers, &learner, &kind, &name).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            discard(body).await;
            return Err(refusal);
        }
    };
    let content = vault.files().take(body).await?;
    if hex::encode(digest(&SHA256, &content.bytes)) != name {
        let told = "the content does not hash to the name";
        return Err(Problem::new(Code::InvalidRequest, told).into());
    }
    let bytes = content.bytes.clone();
    match vault.objects().put(repository, kind, &name, bytes).await {
        Ok(_) => Ok(StatusCode::OK),
        Err(error) if Trouble::of(&error) == Trouble::Full => {
            tracing::error!("the storage of snapshots is full");
            Ok(StatusCode::INSUFFICIENT_STORAGE)
        }
        Err(error) => Err(Error::storage("writing an object")(error).into()),
    }
}

/// Who sends may append such a file.
async fn appends(
    vault: &Vault,
    headers: &HeaderMap,
    learner: &str,
    kind: &str,
    name: &str,
) -> Result<(FileKind, RepositoryId), Refusal> {
    let kind = file(kind, name)?;
    let repository = reach(vault, headers, learner).await?.repository;
    match kind {
        FileKind::Config | FileKind::Keys => Err(append_only().into()),
        FileKind::Data | FileKind::Index | FileKind::Snapshots | FileKind::Locks => {
            Ok((kind, repository))
        }
    }
}

/// `DELETE /restic/{learner}/{kind}/{name}`: locks only.
pub(super) async fn remove(
    State(vault): State<Vault>,
    Path((learner, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let kind = file(&kind, &name)?;
    let repository = reach(&vault, &headers, &learner).await?.repository;
    if kind != FileKind::Locks {
        return Err(append_only().into());
    }
    vault
        .objects()
        .remove(repository, kind, &name)
        .await
        .map_err(Error::storage("removing a lock"))?;
    Ok(StatusCode::OK)
}

fn folder(kind: &str) -> Result<FileKind, Problem> {
    match kind.parse() {
        Ok(FileKind::Config) | Err(_) => Err(Problem::new(Code::NotFound, "")),
        Ok(kind) => Ok(kind),
    }
}

fn file(kind: &str, name: &str) -> Result<FileKind, Problem> {
    let kind = folder(kind)?;
    if is_name(name) {
        Ok(kind)
    } else {
        let told = "a name is 64 hexadecimal digits";
        Err(Problem::new(Code::InvalidRequest, told))
    }
}
