//! Whole turns of the tutor, over HTTP, against a scripted model that speaks the dialect's stream.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and what it spawns ends with it"
)]

#[path = "turns/desk.rs"]
mod desk;
#[path = "turns/failures.rs"]
mod failures;
#[path = "turns/script.rs"]
mod script;
#[path = "turns/talks.rs"]
mod talks;
