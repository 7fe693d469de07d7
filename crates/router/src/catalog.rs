//! What costs nothing: the list of models, and the counting of tokens.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use carrel_llm::{Dialect, Failure, Kind, Request};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::answer::{self, Refusal};
use crate::bound;
use crate::call::{Incoming, current_policy, known};
use crate::options::Options;
use crate::routing::{self, Place};
use crate::service::{Service, Shared};
use crate::upstream::{self, Path, Sending};

/// `GET /v1/models`, in a shape that clients of both dialects read.
pub(crate) async fn models(service: Service, incoming: Incoming) -> Result<Response, Refusal> {
    let shared = service.shared.clone();
    let options = shared.options();
    let caller = known(&shared, &options, &incoming)?;
    let policy = current_policy(&shared, &caller).await?;
    let names = routing::names(&options.routes, policy.as_ref());
    let usable = names
        .into_iter()
        .filter(|name| routing::resolve(name, incoming.dialect, &options, policy.as_ref()).is_ok());
    let data: Vec<_> = usable
        .map(|name| {
            json!({
                "id": name, "type": "model", "object": "model", "display_name": name, "owned_by": "carrel",
                "created": 0, "created_at": "1970-01-01T00:00:00Z",
            })
        })
        .collect();
    let (first, last) = (
        data.first().map(|model| &model["id"]),
        data.last().map(|model| &model["id"]),
    );
    let list = json!({"object": "list", "has_more": false, "first_id": first, "last_id": last, "data": data});
    let mut response = Json(list).into_response();
    answer::identify(&mut response, incoming.id);
    Ok(response)
}

/// `POST /v1/messages/count_tokens`: the provider's count, or our own where it has none.
pub(crate) async fn count_tokens(
    service: Service,
    incoming: Incoming,
) -> Result<Response, Refusal> {
    let shared = service.shared.clone();
    let options = shared.options();
    let caller = known(&shared, &options, &incoming)?;
    let parsed = Request::parse_to_count(&incoming.body);
    let mut request =
        parsed.map_err(|error| Failure::new(Kind::InvalidRequest, error.to_string()))?;
    let policy = current_policy(&shared, &caller).await?;
    let routed = routing::resolve(
        request.model(),
        Dialect::Anthropic,
        &options,
        policy.as_ref(),
    )?;
    request.set_model(&routed.0.model);
    let told = provider_count(&shared, &options, &incoming, &routed.1, &request).await;
    let tokens = match told {
        Some(tokens) => tokens,
        None => bound::of(&shared.tracker, request).await?.1.prompt_tokens * 2 / 3,
    };
    let mut response = Json(json!({"input_tokens": tokens})).into_response();
    answer::identify(&mut response, incoming.id);
    Ok(response)
}

async fn provider_count(
    shared: &Shared,
    options: &Options,
    incoming: &Incoming,
    place: &Place,
    request: &Request,
) -> Option<u64> {
    let Place::Provider(provider) = place else {
        return None;
    };
    let sending = Sending {
        provider,
        path: Path::CountTokens,
        headers: &incoming.headers,
        is_beta: incoming.is_beta,
    };
    let counting = async {
        let answer = upstream::send(&shared.client, &options.timeouts, &sending, request)
            .await
            .ok()?;
        let body: Vec<_> = answer.body.try_collect().await.ok()?;
        let body: Value = serde_json::from_slice(&body.concat()).ok()?;
        body["input_tokens"].as_u64()
    };
    tokio::time::timeout(options.timeouts.first_byte, counting)
        .await
        .ok()
        .flatten()
}
