//! What goes wrong, and what must not be lost by it. Each test runs a server of its own as people do.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests print their evidence, and their tasks end with their runtime"
)]

mod smoke;
