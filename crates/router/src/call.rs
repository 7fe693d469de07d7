//! One call, from the request to the first byte of its answer: who, what, where to, for how much, send, answer.

use std::net::IpAddr;

use axum::response::Response;
use bytes::Bytes;
use carrel_llm::meter::Meter;
use carrel_llm::{Dialect, Failure, Kind, Request};
use carrel_telemetry::label::Word;
use http::HeaderMap;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::answer::{self, Refusal, RequestId};
use crate::caller::{self, Caller};
use crate::metrics::{CallLabels, CallResult, dialect_label};
use crate::options::{Options, Target};
use crate::policy::{Policy, PolicyError};
use crate::routing::{self, Place};
use crate::service::{Service, Shared};
use crate::spend::{self, Hold};
use crate::upstream::{self, Answer};
use crate::{demo, relay, whole};

/// A request as it came.
pub(crate) struct Incoming {
    pub(crate) id: RequestId,
    pub(crate) dialect: Dialect,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) is_beta: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) arrived: Instant,
}

/// A call on its way: where it goes and what is held for it.
pub(crate) struct Call {
    pub(crate) id: RequestId,
    pub(crate) service: Service,
    pub(crate) dialect: Dialect,
    pub(crate) target: Target,
    pub(crate) hold: Hold,
    /// Whether a stream was asked for.
    streams: bool,
    /// Keeps the chunk of usage from a client that did not ask for it.
    pub(crate) hides_usage: bool,
    pub(crate) sent: Instant,
}

/// Answers a call for a message.
pub(crate) async fn serve(service: Service, incoming: Incoming) -> Result<Response, Refusal> {
    let shared = service.shared.clone();
    let options = shared.options();
    let caller = known(&shared, &options, &incoming)?;
    let span = span(&incoming, &caller);
    async {
        let parsed = Request::parse(incoming.dialect, &incoming.body);
        let request =
            parsed.map_err(|error| Failure::new(Kind::InvalidRequest, error.to_string()))?;
        let policy = policy(&shared, &caller).await?;
        let routed =
            routing::resolve(request.model(), incoming.dialect, &options, policy.as_ref())?;
        let admitted =
            spend::admit(&shared, &options, &caller, policy.as_ref(), routed, request).await?;
        let spend::Admitted {
            target,
            place,
            mut request,
            hold,
        } = admitted;
        request.set_model(&target.model);
        let hides_usage = request.ask_for_usage();
        shared
            .ports
            .metrics
            .overhead
            .observe(incoming.arrived.elapsed().as_secs_f64());
        let call = Call {
            id: incoming.id,
            service,
            dialect: incoming.dialect,
            target,
            hold,
            streams: request.streams(),
            hides_usage,
            sent: Instant::now(),
        };
        let answered = send(&shared, &options, &incoming, &place, &request).await;
        call.answer(answered, &options).await
    }
    .instrument(span)
    .await
}

async fn send(
    shared: &Shared,
    options: &Options,
    incoming: &Incoming,
    place: &Place,
    request: &Request,
) -> Result<Answer, upstream::Error> {
    match place {
        Place::Demo => Ok(demo::answer(request)),
        Place::Provider(provider) => {
            let sending = upstream::Sending {
                provider,
                path: upstream::Path::Generate,
                headers: &incoming.headers,
                is_beta: incoming.is_beta,
            };
            upstream::send(&shared.client, &options.timeouts, &sending, request).await
        }
    }
}

impl Call {
    /// Turns what the provider answers into the client's answer; settles on every way.
    async fn answer(
        self,
        answered: Result<Answer, upstream::Error>,
        options: &Options,
    ) -> Result<Response, Refusal> {
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                let shared = &self.service.shared;
                if !error.may_be_billed() {
                    self.hold.settle_nothing(shared).await;
                } else if self.streams {
                    // A stream of which nothing came.
                    self.hold.settle(shared, &Meter::new(self.dialect)).await;
                } else {
                    self.hold.settle_worst(shared).await;
                }
                self.count(error.result());
                return Err(error.failure(&self.target).into());
            }
        };
        let (id, hold_headers) = (self.id, self.hold.headers(self.dialect));
        let target = self.target.clone();
        let mut response = if answer.is_stream {
            relay::start(self, answer, options.timeouts)
        } else {
            whole::read(self, answer, options.timeouts).await?
        };
        answer::identify(&mut response, id);
        answer::set_named(&mut response, "carrel-provider", &target.provider);
        answer::set_named(&mut response, "carrel-model", &target.to_string());
        answer::set_named(&mut response, "carrel-attempts", "1");
        for (name, value) in hold_headers {
            answer::set_named(&mut response, &name, &value);
        }
        Ok(response)
    }

    pub(crate) fn count(&self, result: CallResult) {
        let labels = CallLabels {
            provider: self.target.provider.clone(),
            model: self.hold.model_label(&self.target),
            dialect: dialect_label(self.dialect),
            result: Word::of(result),
        };
        self.service
            .shared
            .ports
            .metrics
            .requests
            .get_or_create(&labels)
            .inc();
    }
}

/// Who calls.
pub(crate) fn known(
    shared: &Shared,
    options: &Options,
    incoming: &Incoming,
) -> Result<Caller, Failure> {
    let ports = &shared.ports;
    caller::identify(
        &incoming.headers,
        incoming.peer,
        &ports.verifier,
        &options.callers,
        shared.now(),
    )
}

/// What a caller may who pays for nothing: no reservation compares its epoch with the fence, so this does.
pub(crate) async fn current_policy(
    shared: &Shared,
    caller: &Caller,
) -> Result<Option<Policy>, Failure> {
    if let Caller::Learner { learner, epoch } = caller {
        let refused_by = shared.ports.ledger.pass_fence(learner, *epoch).await;
        if let Some(fence) = refused_by.map_err(|error| spend::unavailable(&error))? {
            return Err(spend::stale(fence));
        }
    }
    policy(shared, caller).await
}

/// What the caller may; `None` for one without bounds.
async fn policy(shared: &Shared, caller: &Caller) -> Result<Option<Policy>, Failure> {
    let Caller::Learner { learner, .. } = caller else {
        return Ok(None);
    };
    match shared.ports.policy.policy(learner).await {
        Ok(policy) => Ok(Some(policy)),
        Err(error @ PolicyError::NoLearner(_)) => {
            Err(Failure::new(Kind::Unauthenticated, error.to_string()))
        }
        Err(error @ PolicyError::NoClass(_)) => {
            tracing::error!(%error, "a learner has a class without a document");
            Err(Failure::new(
                Kind::Internal,
                "this learner's class is missing; the operator must add it",
            ))
        }
        Err(PolicyError::Store(error)) => Err(spend::unavailable(&error)),
    }
}

fn span(incoming: &Incoming, caller: &Caller) -> tracing::Span {
    let span = tracing::info_span!("model_call", request.id = %incoming.id, learner.id = tracing::field::Empty);
    if let Caller::Learner { learner, .. } = caller {
        span.record("learner.id", tracing::field::display(learner));
    }
    span
}
