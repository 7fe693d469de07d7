//! What the admission policy of the chart refuses in learners' namespaces, also those who may do everything.

use std::time::Duration;

use carrel_tests::cluster::school::{CONTROLLER, LEARNER_NAMESPACES, NAMESPACE};
use carrel_tests::cluster::{Chart, ControlPlane};
use carrel_tests::eventually;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::installed;

const LEARNERS: &str = LEARNER_NAMESPACES[0];
/// An API server knows of a policy by then.
const KNOWN_WITHIN: Duration = Duration::from_mins(1);
const OURS: &str = "registry.example/carrel@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const AGENT: &str = "registry.example/agents/tutor@sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const NOT_THEIRS: &str = "pods of learners must be made by Carrel's controller";
const SPEC_STAYS: &str = "the spec of a learner's pod has must stay as they are";

/// Whatever leads into a pod through the API server.
const WAYS_IN: [&str; 5] = [
    "pods/made/exec?command=id&container=agent&stdout=true",
    "pods/made/attach?container=agent&stdout=true",
    "pods/made/portforward?ports=7080",
    "pods/made:7080/proxy/healthz",
    "services/made:7080/proxy/healthz",
];

/// A pod as the controller makes it.
fn pod(name: &str) -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    let container = |name: &str, image: &str| json!({"name": name, "image": image, "resources": resources, "securityContext": security});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": LEARNERS},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [container("shim", OURS)],
            "containers": [container("sidecar", OURS), container("agent", AGENT)],
            "volumes": [{"name": "workspace", "emptyDir": {}}],
        },
    })
}

/// Why a pod is refused; nothing is made.
async fn refusal(client: &Client, pod: &Value) -> anyhow::Result<String> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod: Pod = serde_json::from_value(pod.clone())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    told(pods.create(&params, &pod).await)
}

/// What the API server says of a call; nothing when it has done it.
fn told<T>(called: kube::Result<T>) -> anyhow::Result<String> {
    match called {
        Ok(_) => Ok(String::new()),
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
    }
}

/// The chart where its policy is in force, with one who may do everything else, and the controller's account.
struct Guarded {
    chart: Chart,
    mallory: Client,
    controller: Client,
}

async fn guarded(test: &str, more: &[&str]) -> anyhow::Result<Option<Guarded>> {
    let Some(chart) = installed(test, 0, more).await? else {
        return Ok(None);
    };
    let mallory = chart.plane.user("mallory", Some("system:masters"))?;
    let mallory = mallory.client().await?;
    let controller = chart.plane.service_account(NAMESPACE, CONTROLLER)?;
    let controller = controller.client().await?;
    eventually("the policy is in force", KNOWN_WITHIN, || async {
        let said = refusal(&mallory, &pod("strange")).await?;
        Ok(said.contains(NOT_THEIRS).then_some(()))
    })
    .await?;
    Ok(Some(Guarded {
        chart,
        mallory,
        controller,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_controller_makes_learners_pods_and_only_of_images_that_are_allowed()
-> anyhow::Result<()> {
    let test = "only_the_controller_makes_learners_pods_and_only_of_images_that_are_allowed";
    let more = [
        "--set=image.registry=registry.example",
        "--set=admission.requireDigest=true",
        "--set=admission.imagePrefixes={registry.example/agents/}",
    ];
    let Some(Guarded {
        chart: _chart,
        mallory,
        controller,
    }) = guarded(test, &more).await?
    else {
        return Ok(());
    };
    eventually("the controller may make pods", KNOWN_WITHIN, || async {
        let said = refusal(&controller, &pod("usual")).await?;
        Ok(said.is_empty().then_some(()))
    })
    .await?;

    let digest = "images must be named by their digest";
    let begin = "images must be Carrel's or begin with one of registry.example/agents/";
    let carrels = "shim and sidecar must be of Carrel's image";
    let image = |path: &'static str| format!("/spec/{path}/image");
    let by_digest = |name: &str| json!(AGENT.replace("registry.example/agents/tutor", name));
    let token = "automountServiceAccountToken must be 'false'";
    let volumes = "volumes must be 'emptyDir'";
    let secret = json!([{"name": "keys", "secret": {"secretName": "carrel-keys"}}]);
    for (place, value, why) in [
        (
            image("containers/1"),
            json!("registry.example/agents/tutor:3"),
            digest,
        ),
        (
            image("containers/1"),
            by_digest("registry.example/agentsmith"),
            begin,
        ),
        (
            image("containers/1"),
            by_digest("elsewhere.example/carrel"),
            begin,
        ),
        (
            image("containers/0"),
            by_digest("registry.example/agents/sidecar"),
            carrels,
        ),
        (
            image("initContainers/0"),
            by_digest("registry.example/agents/shim"),
            carrels,
        ),
        (
            image("initContainers/0"),
            json!("registry.example/carrel:0.1.0"),
            digest,
        ),
        (
            "/spec/automountServiceAccountToken".to_owned(),
            json!(true),
            token,
        ),
        ("/spec/volumes".to_owned(), secret, volumes),
    ] {
        let mut pod = pod("wrong");
        *pod.pointer_mut(&place).unwrap_or(&mut Value::Null) = value;
        let said = refusal(&controller, &pod).await?;
        assert!(said.contains(why), "{place}: '{said}' instead of '{why}'");
    }
    // An agent of Carrel's own image, and what is no business of the policy.
    let mut own = pod("own");
    own["spec"]["containers"][1]["image"] = json!(OURS);
    assert_eq!(refusal(&controller, &own).await?, "");
    let mut elsewhere = pod("elsewhere");
    elsewhere["metadata"]["namespace"] = json!("default");
    assert_eq!(refusal(&mallory, &elsewhere).await?, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learners_pod_stays_as_it_was_made_and_takes_no_commands() -> anyhow::Result<()> {
    let test = "a_learners_pod_stays_as_it_was_made_and_takes_no_commands";
    let Some(Guarded {
        chart,
        mallory,
        controller,
    }) = guarded(test, &[]).await?
    else {
        return Ok(());
    };
    let theirs: Api<Pod> = Api::namespaced(controller.clone(), LEARNERS);
    let made: Pod = serde_json::from_value(pod("made"))?;
    eventually("the controller makes a pod", KNOWN_WITHIN, || async {
        Ok(theirs.create(&PostParams::default(), &made).await.ok())
    })
    .await?;

    // Whoever may label a namespace does not take it out of the policies' sight.
    let namespaces: Api<Namespace> = Api::all(mallory.clone());
    let mut namespace = namespaces.get(LEARNERS).await?;
    namespace.metadata.labels = None;
    namespaces
        .replace(LEARNERS, &PostParams::default(), &namespace)
        .await?;
    eventually("the labels are gone everywhere", KNOWN_WITHIN, || async {
        // Pod Security is by label, and goes with it.
        let mut root = pod("root");
        root["spec"]["securityContext"] = json!({});
        Ok(refusal(&controller, &root).await?.is_empty().then_some(()))
    })
    .await?;
    assert!(
        refusal(&mallory, &pod("strange"))
            .await?
            .contains(NOT_THEIRS)
    );

    let pods: Api<Pod> = Api::namespaced(mallory.clone(), LEARNERS);
    let params = PatchParams::default();
    let patched = |patch: Value| {
        let (pods, params) = (&pods, &params);
        async move { told(pods.patch("made", params, &Patch::Strategic(patch)).await) }
    };
    let labels = json!({"metadata": {"labels": {"carrel.dev/learner": "mallory"}}});
    let said = patched(labels.clone()).await?;
    assert!(
        said.contains("labels of learners' pods must be changed by Carrel's controller alone"),
        "{said}"
    );
    let image =
        json!({"spec": {"containers": [{"name": "agent", "image": "registry.example/mallory"}]}});
    let said = patched(image).await?;
    assert!(said.contains(SPEC_STAYS), "{said}");
    let debug = json!({"spec": {"ephemeralContainers": [{
        "name": "debug", "image": AGENT, "targetContainerName": "agent",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    }]}});
    let said = told(
        pods.patch_ephemeral_containers("made", &params, &Patch::Strategic(debug))
            .await,
    )?;
    assert!(said.contains(SPEC_STAYS), "{said}");
    let more = json!({"spec": {"containers": [{"name": "agent", "resources": {"requests": {"cpu": "200m"}}}]}});
    let said = told(
        pods.patch_subresource("resize", "made", &params, &Patch::Strategic(more))
            .await,
    )?;
    assert!(said.contains(SPEC_STAYS), "{said}");
    let note = json!({"metadata": {"annotations": {"example.com/seen": "yes"}}});
    assert_eq!(patched(note).await?, "");
    theirs.patch("made", &params, &Patch::Merge(labels)).await?;

    well_typed(&chart.plane).await?;
    let door = "what learners' pods hold is learners' own";
    for way in WAYS_IN {
        let said = told_at(&chart.plane, way);
        assert!(said.contains(door), "{way}: {said}");
    }
    // Whom the policy does not stop something else does: there is no node.
    let binding = format!("{NAMESPACE}-carrel-learners-exec");
    chart
        .plane
        .kubectl(&["delete", "validatingadmissionpolicybinding", &binding])?;
    for way in WAYS_IN {
        eventually("it is the policy that refuses", KNOWN_WITHIN, || async {
            Ok((!told_at(&chart.plane, way).contains(door)).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// What the API server says to whoever goes this way.
fn told_at(plane: &ControlPlane, way: &str) -> String {
    let path = format!("/api/v1/namespaces/{LEARNERS}/{way}");
    plane
        .kubectl(&["get", "--raw", &path])
        .unwrap_or_else(|refused| refused.to_string())
}

/// The API server's controller has read the policies, and found each of their expressions to fit what they are about.
async fn well_typed(plane: &ControlPlane) -> anyhow::Result<()> {
    let read = eventually("the policies were read", KNOWN_WITHIN, || async {
        let words = ["get", "validatingadmissionpolicies", "-o", "json"];
        let list: Value = serde_json::from_str(&plane.kubectl(&words)?)?;
        let policies = list["items"].as_array().cloned().unwrap_or_default();
        let is_read = |policy: &Value| {
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
        };
        Ok(policies.iter().all(is_read).then_some(policies))
    })
    .await?;
    assert_eq!(read.len(), 2, "{read:?}");
    for policy in read {
        assert_eq!(
            policy["status"]["typeChecking"]["expressionWarnings"],
            Value::Null,
            "{policy}"
        );
    }
    Ok(())
}
