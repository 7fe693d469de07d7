use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

const RUNBOOKS: &str = "docs/runbooks";

fn read(path: &str) -> String {
    fs::read_to_string(cargo::root().join(path)).unwrap()
}

/// The names of files in a folder that end so, without the ending.
fn names(folder: &str, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(cargo::root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect()
}

/// Each alert's name, and its lines.
fn alerts() -> BTreeMap<String, String> {
    let rules = read(RULES);
    let mut alerts = rules.split("- alert: ");
    alerts.next();
    let named = alerts.map(|text| {
        let (name, lines) = text.split_once('\n').unwrap();
        (name.to_owned(), lines.to_owned())
    });
    named.collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts = alerts();
    assert!(alerts.len() > 15, "{}", alerts.len());
    let mut runbooks = names(RUNBOOKS, ".md");
    assert!(runbooks.remove("README"));
    assert_eq!(runbooks, alerts.keys().cloned().collect());
    let index = read("docs/runbooks/README.md");
    for name in alerts.keys() {
        assert!(index.contains(&format!("[{name}]({name}.md)")), "{name}");
        let runbook = read(&format!("{RUNBOOKS}/{name}.md"));
        for part in [
            "**For learners.**",
            "## How to look",
            "## What to do",
            "## It is over when",
        ] {
            assert!(runbook.contains(part), "{name}: {part}");
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_in_words_and_where_to_go_on() {
    for (name, lines) in alerts() {
        let url = format!("runbook_url: {RUNBOOKS}/{name}.md\n");
        let severities = ["critical", "warning", "info"];
        let severity = severities.map(|word| format!("labels: {{severity: {word}}}\n"));
        assert!(severity.iter().any(|line| lines.contains(line)), "{name}");
        for part in ["summary: ", "description: ", &url] {
            assert!(lines.contains(part), "{name} without {part}");
        }
    }
}

#[test]
fn every_alert_is_played_with_what_makes_it_fire_and_with_what_must_not() {
    let played = read(PLAYED);
    let tests = played
        .lines()
        .filter_map(|line| line.strip_prefix("  - name: "));
    let tests: BTreeSet<String> = tests.map(str::to_owned).collect();
    let names = alerts().into_keys();
    let wanted = names.flat_map(|name| [format!("{name} fires"), format!("{name} rests")]);
    assert_eq!(tests, wanted.collect());
}

#[test]
fn the_dashboard_has_a_row_for_each_part_and_a_query_in_each_panel() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (rows, panels): (Vec<&Value>, Vec<&Value>) =
        panels.iter().partition(|panel| panel["type"] == "row");
    let titles: Vec<&str> = rows
        .iter()
        .map(|row| row["title"].as_str().unwrap())
        .collect();
    assert_eq!(
        titles,
        [
            "Now",
            "Wakes by stage",
            "Learners by state",
            "Queue",
            "Turns",
            "Snapshots",
            "Spend and tokens",
            "API writes",
            "Reconcile time",
        ]
    );
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(
                expression.contains(r#"namespace=~"$namespace""#),
                "{expression}"
            );
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{expression}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(variables, ["datasource", "namespace"]);
}

#[test]
fn every_metric_that_rules_dashboard_and_runbooks_name_is_measured() {
    let measured = measured();
    let samples: BTreeSet<String> = measured.iter().flat_map(Metric::samples).collect();
    let runbooks = names(RUNBOOKS, ".md");
    let runbooks = runbooks.iter().map(|name| format!("{RUNBOOKS}/{name}.md"));
    for place in [RULES, PLAYED, DASHBOARD]
        .map(str::to_owned)
        .into_iter()
        .chain(runbooks)
    {
        let unknown: Vec<String> = named(&read(&place))
            .into_iter()
            .filter(|name| !samples.contains(name))
            .collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?}");
    }
}

#[test]
fn operators_are_told_of_every_metric_and_of_no_other() {
    let told = named(&read("docs/operations.md"));
    // Roles of the database.
    let roles = ["carrel_gateway", "carrel_migrate"];
    let told: BTreeSet<String> = told
        .into_iter()
        .filter(|name| !roles.contains(&name.as_str()))
        .collect();
    assert_eq!(told, measured().iter().map(Metric::family).collect());
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("carrel_"))
        .map(str::to_owned)
        .collect()
}

/// What is registered somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: &'static str,
}

impl Metric {
    /// The names of its samples, as OpenMetrics has them.
    fn samples(&self) -> Vec<String> {
        let endings: &[&str] = match self.kind {
            "Counter" => &["_total"],
            "Histogram" => &["_bucket", "_count", "_sum"],
            "Info" => &["_info"],
            _ => &[""],
        };
        let samples = endings
            .iter()
            .map(|ending| format!("{}{ending}", self.name));
        samples.collect()
    }

    /// What people call it.
    fn family(&self) -> String {
        match self.kind {
            "Histogram" => self.name.clone(),
            _ => self.samples().concat(),
        }
    }
}

fn measured() -> Vec<Metric> {
    let mut measured = Vec::new();
    for entry in fs::read_dir(cargo::root().join("crates")).unwrap() {
        collect(&entry.unwrap().path().join("src"), &mut measured);
    }
    assert!(measured.len() > 25, "{measured:?}");
    measured
}

fn collect(folder: &Path, measured: &mut Vec<Metric>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, measured);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            measured.extend(metrics(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What a source file registers.
fn metrics(source: &str) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for call in ["register(", "register_with_unit(", "encode_descriptor("] {
        for rest in source.split(call).skip(1) {
            let name = rest.trim_start().strip_prefix('"');
            let Some((name, rest)) = name.and_then(|rest| rest.split_once('"')) else {
                continue;
            };
            let arguments = rest.split(';').next().unwrap_or_default();
            let is_timed = arguments.contains("Unit::Seconds");
            metrics.push(Metric {
                name: format!("carrel_{name}{}", if is_timed { "_seconds" } else { "" }),
                kind: kind(source, arguments).unwrap_or_else(|| panic!("what is '{name}'?")),
            });
        }
    }
    metrics
}

/// What a metric is: said in the call, or by the type of the field that is registered.
fn kind(source: &str, arguments: &str) -> Option<&'static str> {
    let within = |text: &str| {
        ["Counter", "Gauge", "Histogram", "Info"]
            .into_iter()
            .find(|kind| text.contains(kind))
    };
    if let Some((_, said)) = arguments.split_once("MetricType::") {
        return within(said);
    }
    let field = arguments
        .split_once(".clone()")
        .and_then(|(path, _)| path.rsplit('.').next())
        .unwrap_or("info");
    let mut lines = source.lines();
    let line = lines.find(|line| match field {
        "0" => line.starts_with("pub struct ") && line.contains('('),
        "info" => line.contains("let info = "),
        field => line
            .trim_start()
            .trim_start_matches("pub(crate) ")
            .starts_with(&format!("{field}: ")),
    });
    line.and_then(within)
}

#[test]
fn a_source_says_what_it_measures() {
    let source = r#"
struct Metrics {
    pub(crate) wakes: Family<Labels, Counter>,
    overhead: Histogram,
}
fn register(registry: &mut Registry) {
    registry.register(
        "wakes",
        "Wakes",
        metrics.wakes.clone(),
    );
    registry.register_with_unit("overhead", "How long", Unit::Seconds, metrics.overhead.clone());
    encoder.encode_descriptor("leader", help, None, MetricType::Gauge)?;
    Wakes::register(registry);
}
"#;
    let found = metrics(source);
    let samples: Vec<String> = found.iter().flat_map(Metric::samples).collect();
    assert_eq!(
        samples,
        [
            "carrel_wakes_total",
            "carrel_overhead_seconds_bucket",
            "carrel_overhead_seconds_count",
            "carrel_overhead_seconds_sum",
            "carrel_leader",
        ]
    );
    let families: Vec<String> = found.iter().map(Metric::family).collect();
    assert_eq!(
        families,
        [
            "carrel_wakes_total",
            "carrel_overhead_seconds",
            "carrel_leader"
        ]
    );
}
