//! The pages in a real browser: what a learner and an operator see, press and hear.
//!
//! Pictures of what was seen lie in the target folder, in `tmp/pages`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests' tasks end with their runtime, and are told by variables what must be there"
)]

mod browser;
mod chat;
mod console;
mod page;
mod policy;
mod resume;
mod server;
mod spent;
mod waking;
