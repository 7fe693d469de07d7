//! What clients see of a learner while it happens: durable events from the store, live ones from the turn's owner, in one
//! order, each once.

mod expand;
mod hub;
mod hubs;
mod log;
mod place;
mod relay;
mod sse;
mod subscriber;
mod turn_log;

pub(crate) use hub::Hub;
pub(crate) use hubs::Hubs;
pub(crate) use place::Place;
pub(crate) use relay::{is_a_gateways, respond_lines};
pub(crate) use sse::respond;
pub(crate) use subscriber::{From, Subscriber};
pub(crate) use turn_log::{PAGE, turn_log};
