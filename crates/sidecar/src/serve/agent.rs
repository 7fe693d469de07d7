//! `ANY /agent/…`: to the agent's own HTTP server, WebSockets included.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use carrel_core::class::Adapter;
use carrel_protocol::{Code, Problem};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use super::{Refusal, caller};
use crate::pod::Pod;
use crate::upstream;

/// Forwards a request to the agent. It counts as activity until its answer has ended.
pub(super) async fn forward(
    State(pod): State<Arc<Pod>>,
    mut request: Request,
) -> Result<Response, Refusal> {
    caller::check(&pod, request.headers())?;
    let away = |reason: &str| Problem::new(Code::AgentUnavailable, reason);
    let serves = pod
        .identity()
        .is_some_and(|own| own.assignment.class.agent.adapter == Adapter::Http);
    if !serves {
        return Err(away("this agent serves no HTTP").into());
    }
    let (activity, reach) = pod.take_request()?;
    *request.uri_mut() = agent_uri(request.uri()).ok_or_else(|| away("the path is of no use"))?;
    let wanted = request.headers().get(header::UPGRADE).cloned();
    upstream::strip(request.headers_mut());
    let host = format!("127.0.0.1:{}", reach.ports.agent);
    request.headers_mut().insert(
        header::HOST,
        HeaderValue::try_from(host).expect("an address is a header's value"),
    );
    if let Some(protocol) = &wanted {
        upgrade(request.headers_mut(), protocol);
    }
    let theirs = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let stream = reach
        .link
        .dial(reach.ports.agent)
        .await
        .map_err(|e| away(&e.to_string()))?;
    let mut answer = upstream::exchange(stream, request, &pod.tasks)
        .await
        .map_err(|_| away("the agent did not answer"))?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(theirs)) = (answer.status(), theirs) {
        let ours = hyper::upgrade::on(&mut answer);
        let end = pod.end.clone();
        pod.tasks.spawn(async move {
            let _activity = activity;
            let joined = async {
                let (ours, theirs) = tokio::try_join!(ours, theirs).ok()?;
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                tokio::io::copy_bidirectional(&mut ours, &mut theirs)
                    .await
                    .ok()
            };
            end.run_until_cancelled(joined).await;
        });
        let protocol = answer.headers().get(header::UPGRADE).cloned().or(wanted);
        upstream::strip(answer.headers_mut());
        if let Some(protocol) = protocol {
            upgrade(answer.headers_mut(), &protocol);
        }
        return Ok(answer.map(|_| Body::empty()));
    }
    upstream::strip(answer.headers_mut());
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &activity;
            frame
        }))
    }))
}

fn upgrade(headers: &mut axum::http::HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::UPGRADE, protocol.clone());
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// `/agent/a?b` is the agent's `/a?b`.
fn agent_uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = path.strip_prefix("/agent")?;
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    path.parse().ok()
}
