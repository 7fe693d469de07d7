//! What the shell of whoever runs the tests may hold, and no program that they start shall hear of.

use std::process::Command;

/// Keys of providers: with one of them a server talks to that provider, for money.
pub const PROVIDER_KEYS: [&str; 3] = ["ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY"];
/// Carrel's settings and flags begin so.
const SETTINGS: &str = "CARREL_";

/// Keeps the shell's keys and settings from a program that is yet to be started. What it is told is told after this.
pub fn unheard(command: &mut Command) -> &mut Command {
    for name in PROVIDER_KEYS {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(SETTINGS.as_bytes()) {
            command.env_remove(name);
        }
    }
    command
}
