use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value as Json, json};

use super::*;

mod reach;

const DEFAULT: &str = "helm/carrel/ci/default-values.yaml";

/// Whether there is helm; says that the test is skipped when there is none.
fn has_helm(test: &str) -> bool {
    let there = Command::new(helm::program()).arg("version").output();
    if there.is_ok_and(|output| output.status.success()) {
        return true;
    }
    skip(test, "helm");
    false
}

/// Says that a test is skipped for the lack of a program, unless charts must be tested.
pub(super) fn skip(test: &str, program: &str) {
    let required = std::env::var_os("CARREL_REQUIRE").unwrap_or_default();
    let required = required.to_string_lossy();
    assert!(
        !required.split(',').any(|word| word == "helm"),
        "{program} is required and absent"
    );
    println!("SKIP {test}: there is no {program}");
}

/// The objects of a rendering, as `Kind namespace/name`, each with its text.
fn objects(rendered: &str) -> BTreeMap<String, String> {
    let documents = rendered
        .split("\n---\n")
        .filter(|text| text.contains("\nkind: "));
    let line = |text: &str, begin: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(begin));
        found.unwrap_or_default().trim_matches('"').to_owned()
    };
    let named = documents.map(|text| {
        let (kind, name) = (line(text, "kind: "), line(text, "  name: "));
        let namespace = line(text, "  namespace: ");
        let slash = if namespace.is_empty() { "" } else { "/" };
        (format!("{kind} {namespace}{slash}{name}"), text.to_owned())
    });
    named.collect()
}

#[test]
fn what_is_made_from_the_chart_is_what_is_there() {
    if !has_helm("what_is_made_from_the_chart_is_what_is_there") {
        return;
    }
    assert_eq!(
        stale().unwrap(),
        Vec::<PathBuf>::new(),
        "run 'cargo xtask manifests'"
    );
}

#[test]
fn every_kind_of_installation_lints_and_renders() {
    if !has_helm("every_kind_of_installation_lints_and_renders") {
        return;
    }
    let files = value_files().unwrap();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let rendered = render(&file, &FOREIGN).unwrap();
        assert!(objects(&rendered).len() > 20, "{file}");
        if !file.contains("/ha-") && !file.contains("/everything-") {
            // Lint knows of no foreign definitions.
            assert_eq!(helm::lint(&file).unwrap(), None, "{file}");
        }
    }
}

#[test]
fn the_default_installation_has_these_objects() {
    if !has_helm("the_default_installation_has_these_objects") {
        return;
    }
    let rendered = render(DEFAULT, &["--set", "crds.enabled=false"]).unwrap();
    let found = objects(&rendered)
        .into_keys()
        .collect::<Vec<_>>()
        .join("\n")
        + "\n";
    let place = cargo::root().join("xtask/src/chart/objects.txt");
    assert_eq!(found, fs::read_to_string(place).unwrap());
}

#[test]
fn rules_and_dashboards_are_rendered_as_they_are_with_links_to_where_the_runbooks_are() {
    const TEST: &str =
        "rules_and_dashboards_are_rendered_as_they_are_with_links_to_where_the_runbooks_are";
    if !has_helm(TEST) {
        return;
    }
    let elsewhere = ["--set", "prometheusRule.runbooks=https://books.example/"];
    let more = [&FOREIGN[..], &elsewhere].concat();
    let rendered = objects(&render("helm/carrel/ci/ha-values.yaml", &more).unwrap());
    let rules = &rendered["PrometheusRule school/carrel"];
    let source = read(Path::new("deploy/rules/alerts.yaml")).unwrap();
    let alerts = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        count += 1;
        assert!(rules.contains(&format!("- alert: {alert}\n")), "{alert}");
        let link = format!("runbook_url: https://books.example/{alert}.md\n");
        assert!(rules.contains(&link), "{link}");
    }
    assert!(count > 15, "{count}");
    let dashboard = &rendered["ConfigMap school/carrel-dashboard-carrel"];
    for line in read(Path::new("deploy/dashboards/carrel.json"))
        .unwrap()
        .lines()
    {
        assert!(dashboard.contains(line), "{line}");
    }
}

#[test]
fn a_value_that_is_not_known_is_refused_wherever_it_stands() {
    if !has_helm("a_value_that_is_not_known_is_refused_wherever_it_stands") {
        return;
    }
    for wrong in [
        "gatewy.replicas=1",
        "vault.replica=1",
        "config.limits.messages=1",
        "keys.secretKeys.kex=a",
    ] {
        let refused = render(DEFAULT, &["--set", wrong]).unwrap_err().to_string();
        assert!(
            refused.contains("additional properties"),
            "{wrong}: {refused}"
        );
    }
    let schema = fs::read_to_string(cargo::root().join("helm/carrel/values.schema.json")).unwrap();
    let schema: Json = serde_json::from_str(&schema).unwrap();
    let mut open = Vec::new();
    open_objects("", &schema, &mut open);
    assert_eq!(open, Vec::<String>::new());
}

/// Objects with properties that take others, and properties that nothing is said of.
fn open_objects(path: &str, schema: &Json, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        if schema["additionalProperties"] != false {
            found.push(format!("{path} takes anything"));
        }
        for (name, property) in properties {
            if property["description"].as_str().is_none_or(str::is_empty)
                && property["$ref"].is_null()
            {
                found.push(format!("{path}.{name} is not described"));
            }
            open_objects(&format!("{path}.{name}"), property, found);
        }
    }
    for (name, definition) in schema["definitions"].as_object().into_iter().flatten() {
        open_objects(name, definition, found);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            open_objects(&format!("{path}.{below}"), &schema[below], found);
        }
    }
}

#[test]
fn what_must_be_said_and_what_the_cluster_lacks_is_named() {
    if !has_helm("what_must_be_said_and_what_the_cluster_lacks_is_named") {
        return;
    }
    for (set, told) in [
        ("database.url=", "database.url must be set"),
        ("objects.url=", "objects.url must be set"),
        (
            "serviceMonitor.enabled=true",
            "install the definitions of the operator of Prometheus",
        ),
        (
            "httpRoute.enabled=true",
            "install the definitions of Gateway API",
        ),
        (
            "database.url=postgres://carrel:secret@db/carrel",
            "database/url",
        ),
        (
            "providerKeys.existingSecret=models",
            "providerKeys.secretKeys must say which variable",
        ),
    ] {
        let refused = render(DEFAULT, &["--set", set]).unwrap_err().to_string();
        assert!(refused.contains(told), "{set}: {refused}");
    }
}

#[test]
fn a_value_that_was_removed_is_answered_with_what_stands_in_its_place() {
    if !has_helm("a_value_that_was_removed_is_answered_with_what_stands_in_its_place") {
        return;
    }
    let copy = cargo::root().join("target/chart-with-a-removed-value");
    let chart = copy.display().to_string();
    let copied = Command::new("cp")
        .arg("-rT")
        .arg(cargo::root().join(CHART))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let removed = "commonLabels.team: say podLabels\ndatabase.url.host: say database.url\n";
    fs::write(copy.join("files/removed.yaml"), removed).unwrap();
    let run = |more: &[&str]| {
        let words = [
            "template",
            "carrel",
            &chart,
            "--kube-version",
            "1.34.4",
            "--values",
            DEFAULT,
        ];
        helm::run(&[&words, more].concat()).unwrap()
    };
    let (without, with) = (run(&[]), run(&["--set", "commonLabels.team=ours"]));
    fs::remove_dir_all(&copy).unwrap();
    assert!(
        without.status.success(),
        "{}",
        String::from_utf8_lossy(&without.stderr)
    );
    let said = String::from_utf8(with.stderr).unwrap();
    assert!(
        said.contains("commonLabels.team was removed: say podLabels"),
        "{said}"
    );
}

#[test]
fn the_program_takes_the_configuration_that_the_chart_gives_it() {
    const TEST: &str = "the_program_takes_the_configuration_that_the_chart_gives_it";
    let Some(carrel) = std::env::var_os("CARREL_BIN").filter(|_| has_helm(TEST)) else {
        println!("SKIP {TEST}: CARREL_BIN names no program, or there is no helm");
        return;
    };
    let folder = cargo::root().join("target/configurations");
    fs::create_dir_all(&folder).unwrap();
    for file in value_files().unwrap() {
        let rendered = render(&file, &FOREIGN).unwrap();
        let (_, text) = rendered.split_once("\n  carrel.yaml: |\n").unwrap();
        let lines = text.lines().map_while(|line| line.strip_prefix("    "));
        let config = lines.collect::<Vec<_>>().join("\n") + "\n";
        let place = folder.join("carrel.yaml");
        fs::write(&place, config).unwrap();
        let mut command = Command::new(&carrel);
        command
            .args(["config", "show", "--data-dir"])
            .arg(&folder)
            .arg("--config")
            .arg(&place);
        let variables = variables(&rendered);
        assert!(variables.len() >= 4, "{file}: {variables:?}");
        command.envs(variables).env("SCHOOL_KEY", "key");
        let shown = command.output().unwrap();
        assert!(
            shown.status.success(),
            "{file}: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("fleet: Kubernetes"), "{file}: {shown}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// What is not taken over by a running component would start it anew.
#[test]
fn prices_reach_routers_that_go_on() {
    if !has_helm("prices_reach_routers_that_go_on") {
        return;
    }
    let spring = objects(&render("helm/carrel/ci/external-values.yaml", &[]).unwrap());
    let config = &spring["ConfigMap school/carrel"];
    let (_, table) = config.split_once("\n  prices.json: |\n").unwrap();
    let long = json!({"over": 200_000, "input": 400, "output": 900});
    let tutor = json!({"input": 200, "output": 12_345_678, "long": long});
    assert_eq!(
        serde_json::from_str::<Json>(table).unwrap(),
        json!({"version": "spring", "models": {"school/tutor": tutor}})
    );
    let router = "Deployment school/carrel-router";
    let (_, mount) = spring[router]
        .split_once("- {name: config, mountPath: ")
        .unwrap();
    let (folder, _) = mount.split_once(',').unwrap();
    let named = format!("\n    prices:\n      overlayFile: {folder}/prices.json\n");
    assert!(config.contains(&named), "{config}");
    for change in ["config.prices.version=summer", "config.prices.models=null"] {
        let more = ["--set", change];
        let summer = objects(&render("helm/carrel/ci/external-values.yaml", &more).unwrap());
        assert_ne!(&summer["ConfigMap school/carrel"], config, "{change}");
        assert_eq!(summer[router], spring[router], "{change}");
    }
    assert!(!objects(&render(DEFAULT, &[]).unwrap())["ConfigMap school/carrel"].contains("prices"));
}

/// What the components' variables set of the configuration.
fn variables(rendered: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (_, text) in objects(rendered)
        .iter()
        .filter(|(name, _)| name.starts_with("Deployment"))
    {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let short = line
                .strip_prefix("- {name: CARREL_")
                .and_then(|rest| rest.split_once(", value: "));
            let long = line.strip_prefix("- name: CARREL_");
            let (name, value) = match (short, long) {
                (Some((name, value)), _) => (name, value.trim_end_matches('}')),
                (None, Some(name)) => (name, lines.next().unwrap().trim_start_matches("value: ")),
                (None, None) => continue,
            };
            let value = value.trim_matches('"').replace("$(POD_IP)", "10.0.0.4");
            found.insert(format!("CARREL_{name}"), value);
        }
    }
    found
}

#[test]
fn each_component_has_the_keys_that_it_reads_and_router_and_vault_no_account() {
    if !has_helm("each_component_has_the_keys_that_it_reads_and_router_and_vault_no_account") {
        return;
    }
    let objects = objects(&render("helm/carrel/ci/external-values.yaml", &[]).unwrap());
    let secrets = |kind: &str, name: &str| -> (BTreeSet<String>, bool) {
        let text = &objects[&format!("{kind} school/carrel-{name}")];
        let paths = text.lines().filter_map(|line| {
            let (_, path) = line.trim().strip_prefix("- {key: ")?.split_once("path: ")?;
            Some(path.trim_end_matches('}').to_owned())
        });
        (
            paths.collect(),
            text.contains("automountServiceAccountToken: true"),
        )
    };
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let password = "database.password";
    for (kind, name, keys, token) in [
        (
            "Deployment",
            "gateway",
            &["admin.token", "gateway.key", "gateway.pub", password][..],
            true,
        ),
        (
            "Deployment",
            "router",
            &["admin.token", "signing.pub", password],
            false,
        ),
        (
            "Deployment",
            "vault",
            &[
                "gateway.pub",
                "kek",
                "s3.credentials",
                "signing.pub",
                password,
            ],
            false,
        ),
        (
            "Deployment",
            "controller",
            &["gateway.pub", "signing.key", "signing.pub"],
            true,
        ),
        ("Job", "migrations", &[password], false),
        ("Pod", "test-answer", &["admin.token"], false),
        ("Pod", "test-erase", &["admin.token"], false),
    ] {
        assert_eq!(secrets(kind, name), (all(keys), token), "{name}");
    }
}

#[test]
fn the_definitions_are_in_the_chart_as_they_are_and_stay_when_it_goes() {
    if !has_helm("the_definitions_are_in_the_chart_as_they_are_and_stay_when_it_goes") {
        return;
    }
    let kept = objects(&render(DEFAULT, &[]).unwrap());
    let let_go = objects(&render(DEFAULT, &["--set", "crds.keep=false"]).unwrap());
    for path in listed(Path::new(DEFINITIONS), "yaml").unwrap() {
        let definition = read(&path).unwrap();
        let (head, spec) = definition.split_once("\nspec:\n").unwrap();
        let name = head
            .lines()
            .find_map(|line| line.strip_prefix("  name: "))
            .unwrap();
        let name = format!("CustomResourceDefinition {name}");
        assert!(kept[&name].contains(spec.trim_end()), "{name}");
        assert!(
            kept[&name].contains("helm.sh/resource-policy: keep"),
            "{name}"
        );
        assert!(!let_go[&name].contains("resource-policy"), "{name}");
    }
}

#[test]
fn every_value_is_described() {
    let all = values::read(&read(Path::new("helm/carrel/values.yaml")).unwrap());
    assert!(all.len() > 150, "{}", all.len());
    let described = |path: &str| {
        all.iter()
            .any(|value| value.path == path && !value.comment.is_empty())
    };
    for value in &all {
        let (above, name) = value.path.rsplit_once('.').unwrap_or(("", &value.path));
        // The first component's blocks speak for the others.
        let like_the_gateway = ["router", "vault", "controller"].contains(&above)
            && described(&format!("gateway.{name}"));
        let last = above.rsplit('.').next();
        let by_component = matches!(last, Some("urls" | "passwordKeys"));
        assert!(
            like_the_gateway || by_component || described(&value.path),
            "{}",
            value.path
        );
    }
    let keys = |component: &str| -> Vec<&str> {
        let begin = format!("{component}.");
        all.iter()
            .filter_map(|value| value.path.strip_prefix(&begin))
            .collect()
    };
    assert_eq!(keys("router"), keys("gateway"));
    assert_eq!(keys("vault"), keys("gateway"));
    let unserved = ["autoscaling", "service"];
    let alone: Vec<&str> = keys("gateway")
        .into_iter()
        .filter(|key| !unserved.contains(key))
        .collect();
    assert_eq!(keys("controller"), alone);
}

#[test]
fn crates_chart_and_image_have_one_version() {
    let chart = read(Path::new("helm/carrel/Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
        assert!(
            chart.lines().any(|found| found == line),
            "Chart.yaml without '{line}'"
        );
    }
    for file in ["deploy/Containerfile", "helm/carrel/README.md"] {
        let named = format!("carrel:{}", env!("CARGO_PKG_VERSION"));
        assert!(
            read(Path::new(file)).unwrap().contains(&named),
            "{file} without '{named}'"
        );
    }
    let image = crate::image::Wanted::default().tag;
    assert!(
        image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))),
        "{image}"
    );
}
