//! The stand-in of fake pods' sidecars.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrel_protocol::Code;
use carrel_protocol::sidecar::Phase;
use carrel_tests::cluster::{Answer, End, PodName, Script, StandIn};
use carrel_tests::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{LONG, make, one_fake_node, start};

/// The pod's namespace and name, address and uid.
fn at(pod: &Pod, stand_in: &StandIn) -> (PodName, String, String) {
    let metadata = pod.metadata.clone();
    let name = PodName {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
    };
    let status = pod.status.clone().unwrap_or_default();
    let address = format!(
        "http://{}:{}",
        status.pod_ip.unwrap_or_default(),
        stand_in.port()
    );
    (name, address, metadata.uid.unwrap_or_default())
}

/// Tells a pod whose it is, as nobody signed it: how it answers.
async fn assign(
    address: &str,
    uid: &str,
    learner: &str,
    epoch: u64,
) -> anyhow::Result<(u16, Value)> {
    let jws = unsigned(json!({"assignment": {"learner": learner, "epoch": epoch, "pod": uid}}));
    let request = reqwest::Client::new().post(format!("{address}/v1/assign"));
    let response = request.json(&json!({"assignment": jws})).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

/// What does not run out.
const LATE: u64 = 4_000_000_000;

fn unsigned(mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = json!(LATE);
    }
    format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Asks as one whose token is of this incarnation.
fn by(request: RequestBuilder, learner: &str, epoch: u64) -> RequestBuilder {
    request.bearer_auth(unsigned(json!({"sub": learner, "ep": epoch})))
}

async fn ask(url: &str) -> anyhow::Result<Value> {
    let request = by(reqwest::Client::new().get(url), "ada", 7);
    Ok(request.send().await?.error_for_status()?.json().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_is_its_first_learners_until_it_ends_with_its_last_words() -> anyhow::Result<()> {
    let test = "each_pod_is_its_first_learners_until_it_ends_with_its_last_words";
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    let stand_in = StandIn::start(plane.client()).await?;
    let (first, second) = (make(&plane, "first").await?, make(&plane, "second").await?);
    let (name, ada, uid) = at(&first, &stand_in);
    let (_, bob, other) = at(&second, &stand_in);
    assert_eq!(ask(&format!("{ada}/v1/hello")).await?["phase"], "blank");

    let restoring = Script {
        phase: Phase::Restoring,
        ..Script::default()
    };
    stand_in.play("ada", restoring);
    let (status, hello) = assign(&ada, &uid, "ada", 7).await?;
    assert_eq!(
        (status, &hello["phase"], &hello["epoch"]),
        (200, &json!("restoring"), &json!(7))
    );
    let (again, _) = assign(&ada, &uid, "ada", 7).await?;
    let (newer, problem) = assign(&ada, &uid, "ada", 8).await?;
    assert_eq!(
        (again, newer, &problem["code"]),
        (200, 409, &json!("conflict"))
    );
    // The other pod is nobody's yet, and not meant by an assignment of this one.
    assert_eq!(assign(&bob, &uid, "bob", 1).await?.0, 421);
    assert_eq!(assign(&bob, &other, "bob", 1).await?.1["phase"], "ready");
    let refused: Vec<_> = stand_in
        .assignments()
        .into_iter()
        .map(|came| (came.learner, came.epoch, came.refused))
        .collect();
    let expected = [
        ("ada", 7, None),
        ("ada", 7, None),
        ("ada", 8, Some(Code::Conflict)),
        ("bob", 1, Some(Code::Misdirected)),
        ("bob", 1, None),
    ];
    assert_eq!(
        refused,
        expected.map(|(learner, epoch, code)| (learner.to_owned(), epoch, code))
    );

    let url = format!("{ada}/v1/ready");
    let (waited, reported) =
        tokio::join!(ask(&url), stand_in.report(&name, Phase::Ready, "at last"));
    reported?;
    assert_eq!(
        (&waited?["phase"], stand_in.sleeps().len()),
        (&json!("ready"), 0)
    );

    let slept = json!({"ending": "slept", "committed": true});
    stand_in.end(&name, &End::with(&slept)).await?;
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    let status = pods.get("first").await?.status.unwrap_or_default();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let containers = status.container_statuses.unwrap_or_default();
    let last = |name: &str| {
        let status = containers.iter().find(|status| status.name == name)?;
        status.state.clone()?.terminated?.message
    };
    assert_eq!(
        (last("sidecar"), last("agent")),
        (Some(slept.to_string()), None)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_asked_to_sleep_ends_as_its_script_says() -> anyhow::Result<()> {
    let test = "a_pod_that_is_asked_to_sleep_ends_as_its_script_says";
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    let stand_in = StandIn::start(plane.client()).await?;
    let pod = make(&plane, "ada").await?;
    let (name, address, uid) = at(&pod, &stand_in);
    let refusal = carrel_protocol::Problem::stale_epoch(carrel_core::Epoch(9));
    stand_in.play(
        "ada",
        Script {
            assignment: Answer::Refuses(Box::new(refusal)),
            ..Script::default()
        },
    );
    let (status, problem) = assign(&address, &uid, "ada", 3).await?;
    assert_eq!((status, &problem["fence"]), (409, &json!(9)));
    stand_in.otherwise(Script {
        asleep: Some(End::killed()),
        ..Script::default()
    });
    assert_eq!(assign(&address, &uid, "bob", 10).await?.0, 200);
    let sleep = || reqwest::Client::new().post(format!("{address}/v1/sleep"));
    let (nobody, another) = (sleep().send(), by(sleep(), "ada", 10).send());
    let (nobody, another) = tokio::try_join!(nobody, another)?;
    assert_eq!(
        (nobody.status().as_u16(), another.status().as_u16()),
        (401, 421)
    );
    let gone = unsigned(json!({"sub": "bob", "ep": 10, "exp": 1}));
    let late = sleep().bearer_auth(gone).send().await?;
    assert_eq!(late.status().as_u16(), 401);
    let asked = by(sleep(), "bob", 10).send().await?;
    assert_eq!(
        (asked.status().as_u16(), stand_in.sleeps()),
        (202, vec![name])
    );
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    eventually("the pod has failed", LONG, || async {
        let status = pods.get("ada").await?.status.unwrap_or_default();
        Ok((status.phase.as_deref() == Some("Failed")).then_some(()))
    })
    .await
}
