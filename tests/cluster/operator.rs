//! The operator's commands by a kubeconfig, against a real API server.

use anyhow::Context as _;
use carrel_tests::cluster::school::{NAMESPACE, School};
use carrel_tests::cluster::{ControlPlane, Operator, placement};
use carrel_tests::eventually;
use serde_json::{Value, json};

use crate::{LONG, one_fake_node, start};

const PAID: &str = "apiVersion: carrel.dev/v1alpha1
kind: LearnerClass
metadata: {name: paid}
spec:
  idle: {minSeconds: 45, maxSeconds: 450}
  budget: {perDayUsd: \"2.50\"}
";

/// A cluster with our definitions, brought as operators bring them, and an empty namespace.
async fn cluster(test: &str) -> anyhow::Result<Option<(ControlPlane, Operator)>> {
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(None);
    };
    plane.namespace("school", &json!({})).await?;
    let operator = Operator::of(&plane)?;
    Ok(Some((plane, operator)))
}

/// What kubectl prints once it ends well: an API server takes a moment to know of what was made.
async fn soon(operator: &Operator, words: &[&str]) -> anyhow::Result<String> {
    eventually(&format!("kubectl {words:?}"), LONG, || async {
        Ok(operator.kubectl(words, "")?.well().ok())
    })
    .await
}

async fn bring(operator: &Operator) -> anyhow::Result<()> {
    let definitions = operator.carrel(&["crd"], "")?.well()?;
    let applied = operator.kubectl(&["apply", "--server-side", "-f", "-"], &definitions)?;
    let applied = applied.well()?;
    assert_eq!(
        applied.matches("serverside-applied").count(),
        2,
        "{applied}"
    );
    let both = ["crd/learners.carrel.dev", "crd/learnerclasses.carrel.dev"];
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    soon(operator, &[&wait[..], &both].concat()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_a_cluster_before_anything_is_installed() -> anyhow::Result<()> {
    let test = "the_doctor_looks_at_a_cluster_before_anything_is_installed";
    let Some((plane, operator)) = cluster(test).await? else {
        return Ok(());
    };
    let words = ["doctor", "--pre", "-n", "school"];
    let said = operator.carrel(&words, "")?.well()?;
    for line in [
        "ok    API server: v1.",
        "ok    rights: the user may make all 19 kinds",
        "ok    namespace: 'school' is there",
        "ok    learners' namespace: 'carrel-learners' is free",
        "ok    definitions: none yet",
        "ok    Pod Security: is there",
        "note  user namespaces: whether pods may have their own is not known",
        "note  processes: whether nodes bound them is not to be seen",
        "note  keys: no Secret 'carrel-keys' yet",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Nothing was made by trying.
    let left = operator
        .kubectl(&["get", "namespaces", "-o", "name"], "")?
        .well()?;
    assert!(!left.contains("carrel"), "{left}");

    plane.namespace("carrel-learners", &json!({})).await?;
    let said = operator.carrel(&words, "")?;
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(
        said.stdout.contains(
            "FAIL  learners' namespace: 'carrel-learners' is there, and helm has not made it"
        ),
        "{said:?}"
    );
    let nobody = Operator::named(&plane.user("eve", None)?)?;
    let said = nobody.carrel(&words, "")?;
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(
        said.stdout
            .contains("FAIL  rights: the user may not create namespaces, ")
            && said.stdout.contains("note  Pod Security: is not tried"),
        "{said:?}"
    );
    // Without a release there is nothing to look at afterwards.
    let said = operator.carrel(&["doctor", "-n", "school"], "")?;
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(
        said.stdout.contains(
            "FAIL  definitions: LearnerClass and Learner are not defined\n      next: carrel crd"
        ) && said
            .stdout
            .contains("FAIL  release: no release of Carrel is in namespace 'school'"),
        "{said:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_explained_and_classes_are_objects() -> anyhow::Result<()> {
    let test = "definitions_are_explained_and_classes_are_objects";
    let Some((plane, operator)) = cluster(test).await? else {
        return Ok(());
    };
    let early = operator.carrel(&["-n", "school", "class", "ls"], "")?;
    assert_eq!(early.status, Some(4), "{early:?}");
    assert!(early.stderr.contains("carrel crd | kubectl"), "{early:?}");
    bring(&operator).await?;
    // Once more changes nothing.
    bring(&operator).await?;
    explained(&operator).await?;

    let applied = operator.carrel(&["class", "apply", "-f", "-", "-n", "school"], PAID)?;
    assert_eq!(applied.status, Some(0), "{applied:?}");
    let object = operator.kubectl(
        &[
            "get",
            "learnerclass",
            "paid",
            "-n",
            "school",
            "-o",
            "json",
            "--show-managed-fields",
        ],
        "",
    )?;
    let object: Value = serde_json::from_str(&object.well()?)?;
    assert_eq!(object["spec"]["idle"]["maxSeconds"], 450);
    assert_eq!(
        object["metadata"]["managedFields"][0]["manager"],
        "carrel-admin"
    );
    assert_eq!(object["metadata"]["managedFields"][0]["operation"], "Apply");
    let table = operator.kubectl(&["get", "learnerclasses", "-n", "school"], "")?;
    let columns = ["NAME", "AGENT", "CPU", "MEMORY", "POOL", "DAY-USD", "AGE"];
    assert_eq!(header(&table.well()?), columns);
    let list = operator
        .carrel(&["class", "ls", "-n", "school"], "")?
        .well()?;
    assert!(list.contains("paid") && list.contains("45-450s"), "{list}");
    // As a plugin of kubectl, too.
    let plugin = operator.kubectl(&["carrel", "class", "ls", "-n", "school"], "")?;
    assert_eq!(plugin.well()?, list);
    let shown = operator
        .carrel(&["class", "show", "paid", "-n", "school"], "")?
        .well()?;
    let again = operator.carrel(&["class", "apply", "-f", "-", "-n", "school"], &shown)?;
    assert_eq!(again.status, Some(0), "{again:?}");
    let nobodys = operator.carrel(&["class", "show", "none-such", "-n", "school"], "")?;
    assert_eq!(nobodys.status, Some(4), "{nobodys:?}");

    // A field that another holds is left to it.
    let theirs = PAID.replace("45,", "50,");
    let flux = [
        "apply",
        "--server-side",
        "--field-manager=flux",
        "--force-conflicts",
        "-n",
        "school",
        "-f",
        "-",
    ];
    operator.kubectl(&flux, &theirs)?.well()?;
    let held = operator.carrel(&["class", "apply", "-f", "-", "-n", "school"], PAID)?;
    assert_eq!(held.status, Some(6), "{held:?}");
    assert!(held.stderr.contains("flux"), "{held:?}");

    let nobody = Operator::named(&plane.user("eve", None)?)?;
    for (words, right) in [
        (
            ["class", "ls", "-n", "school"],
            "list learnerclasses.carrel.dev",
        ),
        (["learner", "ls", "-n", "school"], "list pods"),
    ] {
        let said = nobody.carrel(&words, "")?;
        assert_eq!(said.status, Some(5), "{said:?}");
        let told = format!("context 'test' may not {right} in namespace 'school'");
        assert!(said.stderr.contains(&told), "{said:?}");
    }
    let empty = operator.carrel(&["learner", "ls", "-n", "school"], "")?;
    assert_eq!(empty.status, Some(4), "{empty:?}");
    let told = "no release of Carrel is in namespace 'school' of context 'test': name its namespace by --namespace";
    assert!(empty.stderr.contains(told), "{empty:?}");
    forwarding(&operator, &nobody).await?;
    let unknown = operator.carrel(&["--context", "none-such", "learner", "ls"], "")?;
    assert_eq!(unknown.status, Some(2), "{unknown:?}");
    assert!(
        unknown.stderr.contains("kubectl config get-contexts"),
        "{unknown:?}"
    );
    Ok(())
}

/// With a gateway that is ready, and all rights but that to forward to it.
async fn forwarding(operator: &Operator, nobody: &Operator) -> anyhow::Result<()> {
    let mut spec = placement();
    spec["containers"] = json!([{"name": "gateway", "image": "nothing"}]);
    let items = json!([{"key": "token", "path": "admin.token"}]);
    let secret = json!({"secret": {"name": "our-keys", "items": items}});
    spec["volumes"] = json!([{"name": "secrets", "projected": {"sources": [secret]}}]);
    let labels = json!({
        "app.kubernetes.io/part-of": "carrel", "app.kubernetes.io/instance": "blue",
        "app.kubernetes.io/component": "gateway",
    });
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    ]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
    let eve = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "our-keys"}, "stringData": {"token": "a"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gateway-0", "labels": labels}, "spec": spec},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
            "roleRef": role, "subjects": [eve]},
    ]});
    let create = ["create", "-n", "school", "-f", "-"];
    operator.kubectl(&create, &objects.to_string())?.well()?;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "-n",
        "school",
        "pod/gateway-0",
    ];
    operator.kubectl(&ready, "")?.well()?;
    let told = "context 'test' may not get pods/portforward in namespace 'school'";
    // Her role counts after a moment.
    eventually("only that right is missing", LONG, || async {
        let said = nobody.carrel(&["learner", "ls", "-n", "school"], "")?;
        assert_eq!(said.status, Some(5), "{said:?}");
        Ok(said.stderr.contains(told).then_some(()))
    })
    .await
}

/// `kubectl explain` has words for each field of what is wanted and of what is seen.
async fn explained(operator: &Operator) -> anyhow::Result<()> {
    let mut count = 0;
    let kinds = [
        ("learners", vec!["spec", "status"]),
        ("learnerclasses", vec!["spec"]),
    ];
    for (kind, parts) in kinds {
        let name = format!("{kind}.carrel.dev");
        let crd = operator.kubectl(&["get", "crd", &name, "-o", "json"], "")?;
        let crd: Value = serde_json::from_str(&crd.well()?)?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema.get("status").is_some(), parts.contains(&"status"));
        let mut objects = Vec::new();
        for part in parts {
            walk(&format!("{kind}.{part}"), &schema[part], &mut objects);
        }
        for (path, fields) in objects {
            let said = soon(operator, &["explain", &path]).await?;
            let (about, of_fields) = said.split_once("\nFIELDS:\n").context("it has fields")?;
            let about = about.split_once("DESCRIPTION:").map(|(_, words)| words);
            assert!(about.is_some_and(tells), "{path}: {said}");
            for field in fields {
                let begins = format!("  {field}\t<");
                let mut lines = of_fields.lines();
                lines.find(|line| line.starts_with(&begins));
                let is_next = |line: &&str| line.starts_with("  ") && line.contains("\t<");
                let words: Vec<&str> = lines
                    .take_while(|line| !is_next(line))
                    .filter(|line| line.starts_with("    "))
                    .collect();
                assert!(tells(&words.concat()), "{path}.{field}: {said}");
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} fields");
    Ok(())
}

/// Whether it is words of ours, and not `<empty>` or `<no description>`.
fn tells(words: &str) -> bool {
    let words = words.trim();
    !words.is_empty() && !words.starts_with('<')
}

/// Each object, and those that an array has, with the names of its fields.
fn walk(path: &str, schema: &Value, objects: &mut Vec<(String, Vec<String>)>) {
    let schema = schema.get("items").unwrap_or(schema);
    let Some(fields) = schema["properties"].as_object() else {
        return;
    };
    objects.push((path.to_owned(), fields.keys().cloned().collect()));
    for (name, schema) in fields {
        walk(&format!("{path}.{name}"), schema, objects);
    }
}

/// The first line of a table, word by word.
fn header(table: &str) -> Vec<&str> {
    let line = table.lines().next().unwrap_or_default();
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_a_learner_and_the_doctor_counts_them() -> anyhow::Result<()> {
    let test = "kubectl_waits_for_a_learner_and_the_doctor_counts_them";
    let Some(school) = School::open(test, 1, &Value::Null).await? else {
        return Ok(());
    };
    let operator = Operator::of(&school.plane)?;
    let controller = school.controller().await?;
    let class = json!({"warmPool": {"size": 0}, "isolation": {"userNamespace": false}});
    school.class("free", &class).await?;
    school.resting("ada", "free").await?;
    let wait = |timeout: &'static str| {
        operator.kubectl(
            &[
                "wait",
                "--for=condition=Ready",
                timeout,
                "-n",
                NAMESPACE,
                "learner/ada",
            ],
            "",
        )
    };
    let asleep = wait("--timeout=1s")?;
    assert_eq!(asleep.status, Some(1), "it sleeps: {asleep:?}");
    school.wake("ada", 0).await?;
    let awake = wait("--timeout=60s")?.well()?;
    assert!(awake.contains("condition met"), "{awake}");
    let table = |more: &[&str]| {
        let words = ["get", "learners", "-n", NAMESPACE];
        operator.kubectl(&[&words[..], more].concat(), "")?.well()
    };
    let narrow = ["NAME", "READY", "STATE", "CLASS", "LAST-ACTIVE", "AGE"];
    let wide = ["POD", "NODE", "SNAPSHOT", "MESSAGE"];
    let shown = table(&[])?;
    assert_eq!(header(&shown), narrow);
    let row = shown.lines().last().unwrap_or_default().split_whitespace();
    assert!(row.take(4).eq(["ada", "True", "Ready", "free"]), "{shown}");
    assert_eq!(
        header(&table(&["-o", "wide"])?),
        [&narrow[..], &wide].concat()
    );

    // A part of a release that is there, so that the doctor looks on.
    let gateway = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "gateway-0", "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/part-of": "carrel", "app.kubernetes.io/instance": "blue",
            "app.kubernetes.io/component": "gateway",
        }},
        "spec": {"nodeSelector": {"no": "such"}, "containers": [{"name": "gateway", "image": "carrel"}]},
    });
    operator
        .kubectl(&["create", "-f", "-"], &gateway.to_string())?
        .well()?;
    let said = operator.carrel(&["doctor", "-n", NAMESPACE], "")?;
    assert_eq!(said.status, Some(1), "{said:?}");
    for line in [
        "ok    definitions: are this program's",
        "FAIL  gateway: 0 of 1 pods ready; gateway-0: ",
        "FAIL  router: none of its pods is there",
        "leads, heard of",
        "ok    classes: 1 looked at, all can be used",
        "ok    learners: 1 looked at, none has failed",
        "ok    pools: no class has one",
        "FAIL  server: no gateway of release 'blue' is ready",
    ] {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    controller.stop()
}
