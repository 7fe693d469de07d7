//! Classes: listed, shown, written.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carrel_core::ClassName;
use carrel_core::class::ClassSpec;
use carrel_protocol::Code;
use http::HeaderMap;
use serde::Serialize;

use crate::auth::Operator;
use crate::body::{ORDINARY_BYTES, json};
use crate::gateway::Shared;
use crate::refusal::{Refusal, Result};

/// A class document with its name.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    name: ClassName,
    spec: ClassSpec,
}

/// All of them, by name.
#[derive(Debug, Serialize)]
pub(super) struct List {
    classes: Vec<Named>,
}

pub(super) async fn list(State(shared): State<Shared>, _: Operator) -> Result<Json<List>> {
    let classes = shared.options.store.classes().await?;
    let named = |(name, spec)| Named { name, spec };
    Ok(Json(List {
        classes: classes.into_iter().map(named).collect(),
    }))
}

fn no_class() -> Refusal {
    Refusal::not_found("there is no such class")
}

pub(super) async fn show(
    State(shared): State<Shared>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Named>> {
    let name: ClassName = name.parse().map_err(|_| no_class())?;
    let spec = shared.options.store.class(&name).await?;
    let spec = spec.ok_or_else(no_class)?;
    Ok(Json(Named { name, spec }))
}

/// Writes a class whole; what is absent gets its default. Takes effect at each learner's next wake.
pub(super) async fn put(
    State(shared): State<Shared>,
    _: Operator,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Named>> {
    let name: ClassName = name
        .parse()
        .map_err(|error: carrel_core::id::Error| Refusal::invalid(error.to_string()))?;
    let spec: ClassSpec = json(&headers, body, ORDINARY_BYTES).await?;
    let violations: Vec<String> = spec.violations().iter().map(ToString::to_string).collect();
    if !violations.is_empty() {
        return Err(Refusal::new(Code::InvalidBody, violations.join("; ")));
    }
    shared.options.fleet.declare_class(&name, &spec).await?;
    shared.options.store.put_class(&name, &spec).await?;
    Ok(Json(Named { name, spec }))
}
