//! Lots that can be drawn again.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A source of lots; its seed is printed, and is that of `CARREL_SEED` if it is set.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests are told by variables what to repeat, and say what to set"
)]
pub fn lots(test: &str) -> StdRng {
    let told = std::env::var("CARREL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = told.unwrap_or_else(|| rand::rng().random());
    println!("{test}: CARREL_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
