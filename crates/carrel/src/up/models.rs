//! Which providers and routes the router has: those of the file, and those whose key a variable holds.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use carrel_llm::Dialect;
use carrel_router::{Callers, Provider, Target};
use secrecy::SecretString;

use crate::config::{self, Config};
use crate::exit::{Failure, Kind};

/// Providers that need no line in the file: name, variable, dialect, base URL, model of the route `default`. In the order
/// in which the first that has a key becomes the default.
const KNOWN: [(&str, &str, Dialect, &str, &str); 3] = [
    (
        "anthropic",
        "ANTHROPIC_API_KEY",
        Dialect::Anthropic,
        "https://api.anthropic.com",
        "claude-sonnet-4-5",
    ),
    (
        "openrouter",
        "OPENROUTER_API_KEY",
        Dialect::Anthropic,
        "https://openrouter.ai/api",
        "anthropic/claude-sonnet-4.5",
    ),
    (
        "openai",
        "OPENAI_API_KEY",
        Dialect::OpenAiChat,
        "https://api.openai.com/v1",
        "gpt-5",
    ),
];

/// What was found.
#[derive(Debug)]
pub(super) struct Models {
    pub(super) options: carrel_router::Options,
    /// Names for people, the stand-in last.
    pub(super) names: Vec<String>,
    /// What an operator should know; empty when all is well.
    pub(super) notice: String,
}

impl Models {
    /// Lets the operator's own commands call: the admin token is a key of theirs.
    pub(super) fn with_admin(mut self, token: &str) -> Self {
        let keys = &mut self.options.callers.keys;
        keys.push(SecretString::from(token.to_owned()));
        self
    }
}

/// Puts providers, routes, prices and keys together.
pub(super) fn options(config: &Config) -> anyhow::Result<Models> {
    with_variables(config, &variable_of)
}

/// What a variable is set to.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a variable holds, if it is worth anything.
fn held(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(name).filter(|value| !value.is_empty())
}

fn with_variables(config: &Config, variables: Variables<'_>) -> anyhow::Result<Models> {
    let mut providers = Vec::new();
    for provider in &config.providers {
        providers.push(Provider {
            name: provider.name.clone(),
            dialect: match provider.dialect {
                config::Dialect::Anthropic => Dialect::Anthropic,
                config::Dialect::OpenAiChat => Dialect::OpenAiChat,
            },
            base_url: provider.base_url.trim_end_matches('/').to_owned(),
            keys: provider
                .keys
                .iter()
                .map(|key| secret_of(&format!("providers: '{}'", provider.name), key, variables))
                .collect::<Result<_, _>>()?,
        });
    }
    for (name, variable, dialect, base_url, _) in KNOWN {
        let Some(key) = held(variables, variable) else {
            continue;
        };
        if providers.iter().any(|provider| provider.name == name) {
            continue;
        }
        providers.push(Provider {
            name: name.to_owned(),
            dialect,
            base_url: base_url.to_owned(),
            keys: vec![SecretString::from(key)],
        });
    }
    // The built-in agent speaks Anthropic's dialect, and nothing is translated yet.
    let speaks = |provider: &&Provider| provider.dialect == Dialect::Anthropic;
    let default = KNOWN.iter().find_map(|(name, .., model)| {
        let mut with_key = providers
            .iter()
            .filter(|provider| !provider.keys.is_empty());
        let provider = with_key.find(|provider| provider.name == *name);
        provider.filter(speaks).map(|_| format!("{name}/{model}"))
    });
    let mut routes = carrel_router::Routes::default();
    for (name, targets) in &config.routes {
        let targets = targets
            .iter()
            .map(|target| known_target(name, &target.model, &providers))
            .collect::<Result<_, _>>()?;
        routes.0.insert(name.clone(), targets);
    }
    let notice = notice(
        &providers,
        default.as_deref(),
        routes.0.contains_key("default"),
    );
    if !routes.0.contains_key("default") {
        let model = default.as_deref().unwrap_or("demo/tutor");
        routes
            .0
            .insert("default".to_owned(), vec![parse_target(model)?]);
    }
    let mut names: Vec<_> = providers
        .iter()
        .map(|provider| provider.name.clone())
        .collect();
    names.push("demo".to_owned());
    let keys = config
        .router
        .keys
        .iter()
        .map(|key| secret_of("router.keys", key, variables))
        .collect::<Result<Vec<_>, _>>()?;
    let mut options = carrel_router::Options {
        providers,
        routes,
        callers: Callers {
            keys,
            open_on_loopback: config.router.open_on_loopback,
        },
        ..carrel_router::Options::default()
    };
    if !config.prices.overlay_file.is_empty() {
        let path = &config.prices.overlay_file;
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let overlay = carrel_llm::PriceTable::parse(&text)
            .map_err(|error| Failure::new(Kind::Usage, format!("{path}: {error}")))?;
        options.prices = options.prices.overlaid(overlay);
    }
    Ok(Models {
        options,
        names,
        notice,
    })
}

fn notice(providers: &[Provider], default: Option<&str>, routed: bool) -> String {
    if routed || default.is_some() {
        return String::new();
    }
    if providers.is_empty() {
        return "no provider has a key: the stand-in demo/tutor answers; set ANTHROPIC_API_KEY for a real model".to_owned();
    }
    if providers
        .iter()
        .any(|provider| provider.dialect == Dialect::Anthropic)
    {
        return "the stand-in demo/tutor answers until routes.default names a model".to_owned();
    }
    "the built-in agent needs a provider that speaks Anthropic's dialect; with these keys alone the stand-in demo/tutor answers".to_owned()
}

/// The target of a route, whose provider there must be.
fn known_target(route: &str, text: &str, providers: &[Provider]) -> anyhow::Result<Target> {
    let target = parse_target(text)?;
    let named = |provider: &Provider| provider.name == target.provider;
    if target.provider == "demo" || providers.iter().any(named) {
        return Ok(target);
    }
    let name = &target.provider;
    let variable = KNOWN.iter().find(|known| known.0 == name);
    let remedy = variable.map_or_else(
        || "name it under providers".to_owned(),
        |known| format!("set {} or name it under providers", known.1),
    );
    let message = format!("routes.{route}: there is no provider '{name}': {remedy}");
    Err(Failure::new(Kind::Usage, message).into())
}

fn parse_target(text: &str) -> anyhow::Result<Target> {
    text.parse().map_err(|error: carrel_router::TargetError| {
        Failure::new(Kind::Usage, format!("routes: {error}")).into()
    })
}

/// The files that a configuration names: prices and keys.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let keys = config.providers.iter().flat_map(|provider| &provider.keys);
    keys.chain(&config.router.keys)
        .filter(|place| !place.starts_with("env:"))
        .chain(Some(&config.prices.overlay_file).filter(|file| !file.is_empty()))
        .map(PathBuf::from)
        .collect()
}

/// A secret from `env:NAME` or from a file. What is said does not repeat the place: it may be a key that was written inline.
pub(super) fn secret(owner: &str, place: &str) -> anyhow::Result<SecretString> {
    secret_of(owner, place, &variable_of)
}

fn secret_of(owner: &str, place: &str, variables: Variables<'_>) -> anyhow::Result<SecretString> {
    if let Some(name) = place.strip_prefix("env:") {
        let value = held(variables, name).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("{owner}: the variable {name} is not set"),
            )
        })?;
        return Ok(SecretString::from(value));
    }
    let text = std::fs::read_to_string(place).map_err(|error| {
        let message = format!(
            "{owner}: a file of its keys cannot be read ({error}); keys stand in files or as env:NAME, never inline"
        );
        Failure::new(Kind::Usage, message)
    })?;
    Ok(SecretString::from(text.trim().to_owned()))
}

/// A secret from `env:NAME` or from a file; a relative one lies in `dir`.
pub(super) fn secret_in(dir: &Path, owner: &str, place: &str) -> anyhow::Result<SecretString> {
    if place.starts_with("env:") {
        return secret(owner, place);
    }
    secret(owner, &dir.join(place).to_string_lossy())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the configuration names variables that hold keys"
)]
fn variable_of(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
