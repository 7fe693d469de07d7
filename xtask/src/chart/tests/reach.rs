//! Who is let through to whom by what the chart renders.

use super::*;

#[test]
fn whatever_pods_are_told_to_call_listens_and_may_be_reached() {
    if !has_helm("whatever_pods_are_told_to_call_listens_and_may_be_reached") {
        return;
    }
    let objects = objects(&render(DEFAULT, &[]).unwrap());
    let config = &objects["ConfigMap school/carrel"];
    let out = &objects["NetworkPolicy carrel-learners/carrel-learners"];
    let (_, out) = out.split_once("\n  egress:\n").unwrap();
    for (key, component, name, port) in [
        ("routerUrl", "router", "models", 7071),
        ("egressUrl", "router", "egress", 7074),
        ("vaultUrl", "vault", "vault", 7072),
    ] {
        let url = format!("\n      {key}: http://carrel-{component}.school.svc:{port}\n");
        assert!(config.contains(&url), "{url}{config}");
        let of = |kind: &str| &objects[&format!("{kind} school/carrel-{component}")];
        let served = format!("- {{name: {name}, port: {port}, targetPort: {name}}}");
        assert!(of("Service").contains(&served), "{served}");
        let listens = format!("- {{name: {name}, containerPort: {port}}}");
        assert!(of("Deployment").contains(&listens), "{listens}");
        let listens = format!("0.0.0.0:{port}");
        assert!(of("Deployment").contains(&listens), "{listens}");
        let open = format!("- {{protocol: TCP, port: {port}}}");
        assert!(of("NetworkPolicy").contains(&open), "{component}: {open}");
        let rules = out.split("\n    - to:").map(|rule| (rule, &open));
        let is_let = |(rule, open): (&str, &String)| {
            rule.contains(&format!("component: {component}")) && rule.contains(open)
        };
        assert!(rules.into_iter().any(is_let), "{component}: {open}: {out}");
    }
    let vault = &objects["NetworkPolicy school/carrel-vault"];
    let asks = |rule: &str| ["gateway", "controller"].map(|who| rule.contains(who)) == [true; 2];
    assert!(vault.split("- ports:").any(asks), "{vault}");
}

#[test]
fn components_go_out_to_what_they_need_and_metrics_are_for_whom_is_named() {
    if !has_helm("components_go_out_to_what_they_need_and_metrics_are_for_whom_is_named") {
        return;
    }
    let policy = |component: &str, more: &[&str]| {
        let set = [
            "--set=database.url=postgres://carrel@db.example:6543/carrel",
            "--set=database.urls.router=postgres://router@db.example:6544/carrel",
            "--set=objects.endpoint=http://minio.example:9000",
        ];
        let rendered = render(DEFAULT, &[&set, more].concat()).unwrap();
        let mut objects = objects(&rendered);
        objects
            .remove(&format!("NetworkPolicy school/carrel-{component}"))
            .unwrap()
    };
    let ports = [443, 6443, 6543, 6544, 7079, 7080, 9000];
    for (component, open) in [
        ("gateway", &[443, 6443, 6543, 7080][..]),
        ("router", &[6544]),
        ("vault", &[6543, 9000]),
        ("controller", &[443, 6443, 7080]),
    ] {
        let text = policy(component, &[]);
        let named = ports.map(|port| text.contains(&format!("port: {port}}}")));
        assert_eq!(named, ports.map(|port| open.contains(&port)), "{text}");
        let is_out = text.contains("0.0.0.0/0, except: [10.0.0.0/8");
        assert_eq!(is_out, component == "router", "{text}");
        assert!(!text.contains("169.254.169.254"), "{text}");
        let text = policy(component, &["--set=networkPolicy.egress.enabled=false"]);
        assert!(!text.contains("egress:"), "{text}");
        let from = "--set-json=networkPolicy.metricsFrom=[{\"podSelector\": {}}]";
        assert!(policy(component, &[from]).contains("port: 7079}"));
    }
    let by_account = policy("vault", &["--set=objects.existingSecret="]);
    assert!(by_account.contains("169.254.169.254/32"), "{by_account}");
    assert!(by_account.contains("port: 443}"), "{by_account}");
    // It runs under the policies of the release before, which it must be able to mend.
    let passing = policy("passing", &[]);
    assert!(
        passing.contains("migrations") && !passing.contains("egress:"),
        "{passing}"
    );
}

#[test]
fn whoever_tests_the_release_reaches_its_gateway_though_few_may() {
    if !has_helm("whoever_tests_the_release_reaches_its_gateway_though_few_may") {
        return;
    }
    let objects = objects(&render("helm/carrel/ci/restricted-values.yaml", &[]).unwrap());
    let policy = &objects["NetworkPolicy school/carrel-gateway"];
    let test = &objects["Pod school/carrel-test-answer"];
    for text in [policy, test] {
        assert!(text.contains("app.kubernetes.io/component: test"), "{text}");
    }
    // Its log is that of its only container, which helm shows.
    assert!(
        test.contains("\n  containers:\n    -\n      name: chat\n"),
        "{test}"
    );
}
