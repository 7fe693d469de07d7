//! Where a call goes: from what the request calls its model to a model of a provider. Pure. Rules on the request's
//! content, weights and fail-over have their place in [`resolve`].

use std::collections::BTreeSet;

use carrel_llm::{Dialect, Failure, Kind};

use crate::options::{DEMO, Options, Provider, Routes, Target};
use crate::policy::Policy;

/// The route that a caller falls back to when its budget is spent.
pub(crate) const BACKGROUND: &str = "background";

/// Where a model is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// The built-in stand-in.
    Demo,
    /// A provider.
    Provider(Provider),
}

/// A place for a model; `None` without a policy is no restriction.
pub(crate) fn resolve(
    model: &str,
    dialect: Dialect,
    options: &Options,
    policy: Option<&Policy>,
) -> Result<(Target, Place), Failure> {
    let candidates = candidates(model, &options.routes, policy);
    if candidates.is_empty() {
        let known = names(&options.routes, policy);
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let message = format!(
            "model: there is no '{model}' here; there are: {}",
            known.join(", ")
        );
        return Err(Failure::new(Kind::NotFound, message));
    }
    let allowed: Vec<_> = candidates
        .into_iter()
        .filter(|target| is_allowed(target, &options.routes, policy))
        .collect();
    let Some(first) = allowed.first() else {
        let message = format!("model: '{model}' is not for this learner");
        return Err(Failure::new(Kind::NotFound, message));
    };
    let first = first.clone();
    let placed = allowed
        .into_iter()
        .find_map(|target| Some((place(&target, dialect, options)?, target)));
    placed.map(|(place, target)| (target, place)).ok_or_else(|| {
        let is_known = options.providers.iter().any(|provider| provider.name == first.provider);
        if is_known {
            let message = format!(
                "model: '{first}' does not speak {dialect}; use its own dialect, or another model"
            );
            Failure::new(Kind::InvalidRequest, message)
        } else {
            let message = format!("model: there is no provider '{}' here", first.provider);
            Failure::new(Kind::NotFound, message)
        }
    })
}

/// What the name may mean, in order: the class's route, the operator's route, a model by its full name.
fn candidates(model: &str, routes: &Routes, policy: Option<&Policy>) -> Vec<Target> {
    if let Some(own) = policy.and_then(|policy| policy.routes.get(model)) {
        return own.parse().into_iter().collect();
    }
    if let Some(targets) = routes.0.get(model) {
        return targets.clone();
    }
    model.parse().into_iter().collect()
}

fn is_allowed(target: &Target, routes: &Routes, policy: Option<&Policy>) -> bool {
    let Some(policy) = policy else { return true };
    let name = target.to_string();
    if policy.routes.values().any(|own| *own == name) {
        return true;
    }
    if policy.allow.is_empty() {
        // Only what a route of the operator's names, and of those only what no route of the class replaces.
        let open = routes
            .0
            .iter()
            .filter(|(route, _)| !policy.routes.contains_key(*route));
        return open
            .flat_map(|(_, targets)| targets)
            .any(|named| named == target);
    }
    policy.allow.iter().any(|pattern| matches(pattern, &name))
}

fn place(target: &Target, dialect: Dialect, options: &Options) -> Option<Place> {
    if target.provider == DEMO {
        return Some(Place::Demo);
    }
    let speaks =
        |provider: &&Provider| provider.name == target.provider && provider.dialect == dialect;
    options
        .providers
        .iter()
        .find(speaks)
        .cloned()
        .map(Place::Provider)
}

/// The names that a caller can use for `model`: routes first, then the models that they lead to.
pub(crate) fn names(routes: &Routes, policy: Option<&Policy>) -> BTreeSet<String> {
    let own = policy.into_iter().flat_map(|policy| policy.routes.keys());
    let mut names: BTreeSet<String> = own.chain(routes.0.keys()).cloned().collect();
    let targets: Vec<_> = names
        .iter()
        .flat_map(|name| candidates(name, routes, policy))
        .collect();
    let usable = targets
        .into_iter()
        .filter(|target| is_allowed(target, routes, policy));
    let usable: Vec<_> = usable.map(|target| target.to_string()).collect();
    names.retain(|name| {
        let targets = candidates(name, routes, policy);
        targets
            .iter()
            .any(|target| is_allowed(target, routes, policy))
    });
    names.extend(usable);
    names
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(head).is_some_and(|text| {
        let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        ends.into_iter().any(|at| matches(rest, &text[at..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let provider = |name: &str, dialect| Provider {
            name: name.into(),
            dialect,
            base_url: format!("https://{name}.example"),
            keys: Vec::new(),
        };
        let target = |text: &str| text.parse::<Target>().unwrap();
        Options {
            providers: vec![
                provider("anthropic", Dialect::Anthropic),
                provider("openai", Dialect::OpenAiChat),
                provider("both", Dialect::Anthropic),
                provider("both", Dialect::OpenAiChat),
            ],
            routes: Routes(
                [
                    (
                        "default".into(),
                        vec![target("anthropic/claude-sonnet-5"), target("openai/gpt-5")],
                    ),
                    ("background".into(), vec![target("demo/tutor")]),
                ]
                .into(),
            ),
            ..Options::default()
        }
    }

    fn policy(routes: &[(&str, &str)], allow: &[&str]) -> Policy {
        let owned = |(name, model): &(&str, &str)| ((*name).to_owned(), (*model).to_owned());
        Policy {
            routes: routes.iter().map(owned).collect(),
            allow: allow.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..Policy::default()
        }
    }

    fn to(model: &str, dialect: Dialect, policy: Option<&Policy>) -> Result<String, Kind> {
        let resolved = resolve(model, dialect, &options(), policy);
        resolved
            .map(|(target, _)| target.to_string())
            .map_err(|failure| failure.kind)
    }

    #[test]
    fn a_route_leads_to_its_first_target_that_speaks_the_dialect() {
        assert_eq!(
            to("default", Dialect::Anthropic, None).unwrap(),
            "anthropic/claude-sonnet-5"
        );
        assert_eq!(
            to("default", Dialect::OpenAiChat, None).unwrap(),
            "openai/gpt-5"
        );
        assert_eq!(
            to("background", Dialect::OpenAiChat, None).unwrap(),
            "demo/tutor"
        );
    }

    #[test]
    fn a_full_name_may_have_slashes_and_a_wrong_one_is_said() {
        assert_eq!(
            to("both/org/m:free", Dialect::OpenAiChat, None).unwrap(),
            "both/org/m:free"
        );
        assert_eq!(
            to("openai/gpt-5", Dialect::Anthropic, None),
            Err(Kind::InvalidRequest)
        );
        assert_eq!(
            to("nowhere/m", Dialect::Anthropic, None),
            Err(Kind::NotFound)
        );
        assert_eq!(to("claude", Dialect::Anthropic, None), Err(Kind::NotFound));
    }

    #[test]
    fn a_classs_route_wins_and_replaces_the_operators() {
        let demo = policy(&[("default", "demo/tutor")], &[]);
        assert_eq!(
            to("default", Dialect::Anthropic, Some(&demo)).unwrap(),
            "demo/tutor"
        );
        let replaced = to("anthropic/claude-sonnet-5", Dialect::Anthropic, Some(&demo));
        assert_eq!(replaced, Err(Kind::NotFound));
    }

    #[test]
    fn without_an_allow_list_only_what_routes_name_is_open() {
        let open = Policy::default();
        assert_eq!(
            to("openai/gpt-5", Dialect::OpenAiChat, Some(&open)).unwrap(),
            "openai/gpt-5"
        );
        assert_eq!(
            to("openai/gpt-5-pro", Dialect::OpenAiChat, Some(&open)),
            Err(Kind::NotFound)
        );
    }

    #[test]
    fn an_allow_list_holds_for_routes_and_full_names() {
        let free = policy(&[], &["demo/*", "*/gpt-5"]);
        assert_eq!(
            to("default", Dialect::OpenAiChat, Some(&free)).unwrap(),
            "openai/gpt-5"
        );
        assert_eq!(
            to("default", Dialect::Anthropic, Some(&free)),
            Err(Kind::InvalidRequest)
        );
        assert_eq!(
            to("openai/gpt-5-mini", Dialect::OpenAiChat, Some(&free)),
            Err(Kind::NotFound)
        );
        assert_eq!(
            to("demo/tutor", Dialect::Anthropic, Some(&free)).unwrap(),
            "demo/tutor"
        );
    }

    #[test]
    fn the_list_of_names_has_what_can_be_used_and_nothing_else() {
        let free = policy(&[("mine", "demo/tutor")], &["demo/*"]);
        let names: Vec<_> = names(&options().routes, Some(&free)).into_iter().collect();
        assert_eq!(names, ["background", "demo/tutor", "mine"]);
    }

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, text, expected) in [
            ("*", "a/b", true),
            ("a/*", "a/b/c", true),
            ("a/*", "b/a/c", false),
            ("*-mini", "openai/gpt-5-mini", true),
            ("o*/gpt*i", "openai/gpt-5-mini", true),
            ("a/b", "a/bc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
