//! The money of one call: reserve the worst case before it, settle once after it.

use std::time::Duration;

use carrel_core::class::OnExhausted;
use carrel_core::{Epoch, NanoUsd, ReservationId};
use carrel_llm::budget::{self, Exhausted};
use carrel_llm::fit::{self, Ask, Fit};
use carrel_llm::meter::Meter;
use carrel_llm::settle::{Basis, Charge, Worst, charge};
use carrel_llm::{Dialect, Failure, Kind, Price, Request, Usage};
use carrel_store::ledger::{Left, NewReservation, Period, Reserved, Settlement};
use uuid::Uuid;

use crate::answer::Refusal;
use crate::bound;
use crate::caller::Caller;
use crate::options::{Options, Target};
use crate::policy::Policy;
use crate::routing::{self, BACKGROUND, Place};
use crate::service::Shared;

/// The limit of output of a request without one, to a model whose own is unknown.
const UNKNOWN_OUTPUT_TOKENS: u64 = 8_192;
/// How often a lower reservation is tried while others take from the same budget.
const TRIES: usize = 6;
/// How often a settlement is tried; after that the sweeper charges what was reserved.
const SETTLE_TRIES: u32 = 6;

/// A call that may go.
pub(crate) struct Admitted {
    pub(crate) target: Target,
    pub(crate) place: Place,
    pub(crate) request: Request,
    pub(crate) hold: Hold,
}

/// What is held for a call until it is settled.
#[derive(Debug)]
pub(crate) struct Hold {
    /// `None` for a caller without a ledger.
    reservation: Option<ReservationId>,
    price: Price,
    is_priced: bool,
    reserved: NanoUsd,
    worst: Worst,
    lowered_to: Option<u64>,
    /// Reserved and spent, of which bound.
    used: Option<(NanoUsd, NanoUsd)>,
}

/// Reserves the worst case for a call; lowers its output or turns to the route `background` where the class says so.
pub(crate) async fn admit(
    shared: &Shared,
    options: &Options,
    caller: &Caller,
    policy: Option<&Policy>,
    (target, place): (Target, Place),
    request: Request,
) -> Result<Admitted, Refusal> {
    let exhausted = match attempt(
        shared,
        options,
        caller,
        policy,
        (target.clone(), place),
        request.clone(),
    )
    .await?
    {
        Ok(admitted) => return Ok(admitted),
        Err(exhausted) => exhausted,
    };
    let degrades = policy.is_some_and(|policy| policy.budget.on_exhausted == OnExhausted::Degrade);
    if degrades
        && let Ok(background) = routing::resolve(BACKGROUND, request.dialect(), options, policy)
        && background.0 != target
    {
        match attempt(shared, options, caller, policy, background, request).await {
            Ok(Ok(admitted)) => {
                tracing::info!(model = %admitted.target, "the budget is spent: the call went to the background route");
                return Ok(admitted);
            }
            Ok(Err(_)) => {}
            // Without a price no budget holds it; that the budget is spent is what the learner must be told.
            Err(refusal) if refusal.failure.kind == Kind::NotFound => {}
            Err(refusal) => return Err(refusal),
        }
    }
    shared.ports.metrics.budget_refusals.inc();
    Err(Refusal {
        failure: exhausted.failure(),
        headers: exhausted.headers(shared.now()),
    })
}

/// One target: held, or which budget does not allow it.
async fn attempt(
    shared: &Shared,
    options: &Options,
    caller: &Caller,
    policy: Option<&Policy>,
    (target, place): (Target, Place),
    mut request: Request,
) -> Result<Result<Admitted, Exhausted>, Refusal> {
    let known = price(options, &target, &place);
    let budget = policy
        .map(|policy| policy.budget.clone())
        .unwrap_or_default();
    let is_bounded = budget.per_day().is_some() || budget.per_month().is_some();
    if known.is_none() && is_bounded {
        let message = format!(
            "model: no price is known for '{target}', so no budget can hold it; the operator can add it to the price overlay"
        );
        return Err(Failure::new(Kind::NotFound, message).into());
    }
    let price = known.unwrap_or(Price::FREE);
    if policy.is_some() {
        request.strip_detours();
    }
    if is_bounded && !price.is_free() {
        request
            .strip_surcharges()
            .map_err(|error| Failure::new(Kind::InvalidRequest, error.to_string()))?;
    }
    let (mut request, bound) = bound::of(&shared.tracker, request).await?;
    let ask = Ask {
        bound,
        max_tokens: request
            .output_limit()
            .or(price.max_output)
            .unwrap_or(UNKNOWN_OUTPUT_TOKENS),
        thinking_tokens: request.thinking_budget(),
        thinks_unseen: request.thinks_unseen(price.thinks_unasked),
        answers: request.answers(),
    };
    let Caller::Learner { learner, epoch } = caller else {
        let fit = fit::whole(&ask, &price);
        let worst = worst(&ask, &fit, &place);
        let hold = Hold::new(None, price, known.is_some(), worst, &fit);
        return Ok(Ok(Admitted {
            target,
            place,
            request,
            hold,
        }));
    };
    let mut reservation = NewReservation {
        id: ReservationId(Uuid::new_v4()),
        learner: learner.clone(),
        epoch: Some(*epoch),
        model: target.to_string(),
        amount: NanoUsd::ZERO,
        // What costs nothing is not held up by a budget that is spent.
        per_day: budget.per_day().filter(|_| !price.is_free()),
        per_month: budget.per_month().filter(|_| !price.is_free()),
    };
    let (fit, left) = match reserve(shared, &ask, &price, &mut reservation).await? {
        Ok(held) => held,
        Err(exhausted) => return Ok(Err(exhausted)),
    };
    if is_bounded && !price.is_free() {
        request.set_output_limit(fit.max_tokens);
    }
    let worst = worst(&ask, &fit, &place);
    let mut hold = Hold::new(Some(reservation.id), price, known.is_some(), worst, &fit);
    hold.lowered_to = (fit.max_tokens < ask.max_tokens).then_some(fit.max_tokens);
    hold.used = left.map(|left| (left.limit.minus(left.remaining), left.limit));
    Ok(Ok(Admitted {
        target,
        place,
        request,
        hold,
    }))
}

/// Reserves, with less output when that is what fits.
async fn reserve(
    shared: &Shared,
    ask: &Ask,
    price: &Price,
    reservation: &mut NewReservation,
) -> Result<Result<(Fit, Option<Left>), Exhausted>, Refusal> {
    let mut fit = fit::whole(ask, price);
    let mut tries = 0;
    loop {
        reservation.amount = fit.worst;
        tries += 1;
        let reserved = shared.ports.ledger.reserve(reservation, shared.now()).await;
        match reserved.map_err(|error| unavailable(&error))? {
            Reserved::Held { left, .. } => return Ok(Ok((fit, left))),
            Reserved::Exhausted {
                period,
                resets_time,
                remaining,
                limit,
            } => {
                let exhausted = Exhausted {
                    period: match period {
                        Period::Daily => budget::Period::Daily,
                        Period::Monthly => budget::Period::Monthly,
                    },
                    limit,
                    resets_at: resets_time,
                };
                match fit::within(ask, price, remaining) {
                    Some(lower) if tries < TRIES => fit = lower,
                    _ => return Ok(Err(exhausted)),
                }
            }
            Reserved::StaleEpoch { fence } => {
                return Err(stale(fence).into());
            }
            Reserved::NoLearner => {
                let failure =
                    Failure::new(Kind::Unauthenticated, "this learner is not known any more");
                return Err(failure.into());
            }
        }
    }
}

/// What a model costs; a provider without keys bills nobody, unless the table knows better.
fn price(options: &Options, target: &Target, place: &Place) -> Option<Price> {
    match place {
        Place::Demo => Some(Price::FREE),
        Place::Provider(provider) => {
            let listed = options.prices.price(&target.provider, &target.model);
            listed.or_else(|| provider.keys.is_empty().then_some(Price::FREE))
        }
    }
}

/// What a call may use at most, with the limit of output that is sent.
fn worst(ask: &Ask, fit: &Fit, place: &Place) -> Worst {
    Worst {
        bound: ask.bound,
        output_tokens: fit.max_tokens.saturating_mul(ask.answers),
        thinking_tokens: ask.thinking_tokens,
        thinks_unseen: ask.thinks_unseen,
        begins_at_once: match place {
            Place::Demo => true,
            Place::Provider(provider) => provider.is_maker(),
        },
    }
}

/// The incarnation was replaced.
pub(crate) fn stale(fence: Epoch) -> Failure {
    let message = format!("stale_epoch: this incarnation was replaced; the fence is at {fence}");
    Failure::new(Kind::StaleEpoch, message)
}

/// The store is away.
pub(crate) fn unavailable(error: &carrel_store::Error) -> Failure {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the store could not answer the router"
    );
    Failure::new(
        Kind::Unavailable,
        "the ledger cannot be reached; try again shortly",
    )
}

impl Hold {
    fn new(
        reservation: Option<ReservationId>,
        price: Price,
        is_priced: bool,
        worst: Worst,
        fit: &Fit,
    ) -> Self {
        Self {
            reservation,
            price,
            is_priced,
            reserved: fit.worst,
            worst,
            lowered_to: None,
            used: None,
        }
    }

    /// Headers that tell of the money: a lowered limit and, to those who can read it, the budget.
    pub(crate) fn headers(&self, dialect: Dialect) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        if let Some(limit) = self.lowered_to {
            headers.push(("carrel-max-tokens".to_owned(), limit.to_string()));
        }
        if let (Dialect::Anthropic, Some((used, limit))) = (dialect, self.used) {
            headers.extend(budget::headers_of_success(used, limit));
        }
        headers
    }

    /// The model in a metric: a name that somebody wrote into a table, so that labels stay few.
    pub(crate) fn model_label(&self, target: &Target) -> String {
        if self.is_priced && !self.price.is_free() || target.provider == crate::options::DEMO {
            target.model.clone()
        } else {
            "other".to_owned()
        }
    }

    /// Settles what an answer used; gives its cost.
    pub(crate) async fn settle(&self, shared: &Shared, meter: &Meter) -> NanoUsd {
        let Charge { usage, cost, basis } = charge(meter, &self.worst, &self.price);
        if basis != Basis::Reported {
            tracing::warn!(?basis, %cost, "a provider did not report what a call used");
        }
        self.write(shared, &usage, cost).await;
        cost
    }

    /// Settles a call of which nothing is known but that it was sent.
    pub(crate) async fn settle_worst(&self, shared: &Shared) {
        self.write(shared, &self.worst.usage(), self.reserved).await;
    }

    /// Settles a call that cost nothing.
    pub(crate) async fn settle_nothing(&self, shared: &Shared) {
        self.write(shared, &Usage::default(), NanoUsd::ZERO).await;
    }

    async fn write(&self, shared: &Shared, usage: &Usage, cost: NanoUsd) {
        shared.ports.metrics.count(usage, cost);
        let Some(id) = self.reservation else { return };
        if cost > self.reserved {
            shared.ports.metrics.budget_overruns.inc();
            let reserved = self.reserved;
            tracing::error!(%cost, %reserved, "a call cost more than was reserved for it: the estimate is wrong");
        }
        let settlement = Settlement {
            cost,
            input_tokens: usage.prompt_tokens(),
            output_tokens: usage.output_tokens,
        };
        for attempt in 0..SETTLE_TRIES {
            match shared
                .ports
                .ledger
                .settle(id, &settlement, shared.now())
                .await
            {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!("a call was settled before it ended, at what was reserved");
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        attempt,
                        "settling a call failed"
                    );
                    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                }
            }
        }
        tracing::error!("a call could not be settled; it will be charged as reserved");
    }
}
