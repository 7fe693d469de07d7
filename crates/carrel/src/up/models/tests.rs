use secrecy::ExposeSecret;

use super::*;

/// What is found with this file in a shell that holds these variables.
fn found(file: &str, shell: &[(&str, &str)]) -> anyhow::Result<Models> {
    let files = vec![("carrel.yaml".into(), file.to_owned())];
    let config = config::read(files, std::iter::empty())?.config;
    let variable = |name: &str| {
        let held = shell.iter().find(|(held, _)| *held == name);
        held.map(|(_, value)| (*value).to_owned())
    };
    Ok(with_variables(&config, &variable)?.with_admin("the-admin-token"))
}

/// The target of the route `default`.
fn default_of(models: &Models) -> String {
    let targets = &models.options.routes.0["default"];
    assert_eq!(targets.len(), 1);
    format!("{}/{}", targets[0].provider, targets[0].model)
}

/// Variables, names of providers, the default, how the notice begins.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str, &'a str);

const ANTHROPIC: (&str, &str) = ("ANTHROPIC_API_KEY", "sk-a");
const OPENROUTER: (&str, &str) = ("OPENROUTER_API_KEY", "sk-r");
const OPENAI: (&str, &str) = ("OPENAI_API_KEY", "sk-o");

#[test]
fn the_first_provider_with_a_key_that_the_built_in_agent_can_talk_to_is_the_default() {
    let anthropic = "anthropic/claude-sonnet-4-5";
    let openrouter = "openrouter/anthropic/claude-sonnet-4.5";
    let cases: [Case<'_>; 6] = [
        (
            &[OPENAI, OPENROUTER, ANTHROPIC],
            &["anthropic", "openrouter", "openai", "demo"],
            anthropic,
            "",
        ),
        (
            &[OPENAI, OPENROUTER],
            &["openrouter", "openai", "demo"],
            openrouter,
            "",
        ),
        (&[ANTHROPIC], &["anthropic", "demo"], anthropic, ""),
        (
            &[OPENAI],
            &["openai", "demo"],
            "demo/tutor",
            "the built-in agent needs a provider that speaks Anthropic's dialect",
        ),
        (&[], &["demo"], "demo/tutor", "no provider has a key"),
        (
            &[("ANTHROPIC_API_KEY", ""), ("OTHER_KEY", "x")],
            &["demo"],
            "demo/tutor",
            "no provider has a key",
        ),
    ];
    for (shell, names, default, notice) in cases {
        let models = found("", shell).expect("valid");
        assert_eq!(models.names, names, "{shell:?}");
        assert_eq!(default_of(&models), default, "{shell:?}");
        assert_eq!(models.notice.is_empty(), notice.is_empty(), "{shell:?}");
        assert!(models.notice.starts_with(notice), "{}", models.notice);
    }
}

#[test]
fn a_key_from_a_variable_goes_to_that_providers_own_server() {
    let models = found("", &[OPENAI, OPENROUTER, ANTHROPIC]).expect("valid");
    let providers = models.options.providers.iter();
    let all: Vec<_> = providers
        .map(|provider| {
            let keys: Vec<_> = provider
                .keys
                .iter()
                .map(ExposeSecret::expose_secret)
                .collect();
            (provider.base_url.as_str(), provider.dialect, keys)
        })
        .collect();
    let wanted = [
        (
            "https://api.anthropic.com",
            Dialect::Anthropic,
            vec!["sk-a"],
        ),
        (
            "https://openrouter.ai/api",
            Dialect::Anthropic,
            vec!["sk-r"],
        ),
        (
            "https://api.openai.com/v1",
            Dialect::OpenAiChat,
            vec!["sk-o"],
        ),
    ];
    assert_eq!(all, wanted);
}

#[test]
fn a_provider_of_the_file_is_taken_as_it_stands_there_and_is_a_default_like_others() {
    let file = "providers:\n\
        - {name: anthropic, dialect: Anthropic, baseUrl: 'http://mirror/', keys: ['env:MY_KEY']}\n";
    let models = found(file, &[("MY_KEY", "sk-m"), ANTHROPIC, OPENROUTER]).expect("valid");
    assert_eq!(models.names, ["anthropic", "openrouter", "demo"]);
    let first = &models.options.providers[0];
    assert_eq!(
        (first.base_url.as_str(), first.keys[0].expose_secret()),
        ("http://mirror", "sk-m")
    );
    assert_eq!(default_of(&models), "anthropic/claude-sonnet-4-5");
    assert_eq!(models.notice, "");

    let local = "providers: [{name: local, dialect: Anthropic, baseUrl: 'http://127.0.0.1:1'}]";
    let models = found(local, &[OPENAI]).expect("valid");
    assert_eq!(default_of(&models), "demo/tutor");
    assert!(
        models.notice.contains("routes.default"),
        "{}",
        models.notice
    );

    let routed = format!("{local}\nroutes: {{default: [{{model: local/one}}]}}\n");
    let models = found(&routed, &[ANTHROPIC]).expect("valid");
    assert_eq!(
        default_of(&models),
        "local/one",
        "the file's own route wins"
    );
    assert_eq!(models.notice, "");
}

#[test]
fn a_variable_that_is_named_and_not_set_is_said_and_a_set_one_lets_its_holder_call() {
    let file = "router: {keys: ['env:DESK_KEY']}\n";
    for shell in [&[][..], &[("DESK_KEY", "")]] {
        let refused = found(file, shell).expect_err("no key").to_string();
        assert_eq!(refused, "router.keys: the variable DESK_KEY is not set");
    }
    let models = found(file, &[("DESK_KEY", "sk-desk")]).expect("valid");
    let keys = models.options.callers.keys.iter();
    let keys: Vec<_> = keys.map(ExposeSecret::expose_secret).collect();
    assert!(
        keys.contains(&"sk-desk") && keys.contains(&"the-admin-token"),
        "{keys:?}"
    );
}
