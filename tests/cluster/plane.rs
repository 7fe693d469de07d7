//! The control plane by itself.

use std::net::IpAddr;
use std::time::Instant;

use carrel_tests::cluster::{Options, tally};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{labels, make, one_fake_node, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_a_fake_node_is_ready_at_an_address_of_this_machine() -> anyhow::Result<()> {
    let test = "a_pod_on_a_fake_node_is_ready_at_an_address_of_this_machine";
    let Some(plane) = start(
        test,
        Options {
            tainted: true,
            ..one_fake_node()
        },
    )
    .await?
    else {
        return Ok(());
    };
    let began = Instant::now();
    let pod = make(&plane, "ada").await?;
    println!("{test}: the pod is ready after {:?}", began.elapsed());
    let status = pod.status.unwrap_or_default();
    let address: IpAddr = status.pod_ip.unwrap_or_default().parse()?;
    assert!(address.is_loopback(), "{address}");
    assert_eq!(
        pod.spec.unwrap_or_default().node_name.as_deref(),
        Some("fake-0")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_exactly_what_a_user_wrote() -> anyhow::Result<()> {
    let test = "the_audit_log_has_exactly_what_a_user_wrote";
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    plane.namespace("school", &labels()).await?;
    let teacher = plane.user("teacher", Some("system:masters"))?;
    let stranger = plane.user("stranger", Some("guests"))?;
    let maps: Api<ConfigMap> = Api::namespaced(teacher.client().await?, "school");
    let (post, named) = (PostParams::default(), |name: &str| {
        serde_json::from_value(json!({"metadata": {"name": name}}))
    });
    maps.create(&post, &named("before")?).await?;

    let mark = plane.mark().await?;
    maps.create(&post, &named("one")?).await?;
    maps.create(&post, &named("two")?).await?;
    maps.list(&kube::api::ListParams::default()).await?;
    maps.get("one").await?;
    let manager = PatchParams {
        field_manager: Some("carrel-test".to_owned()),
        ..PatchParams::default()
    };
    maps.patch("two", &manager, &Patch::Merge(json!({"data": {"a": "b"}})))
        .await?;
    maps.delete("one", &DeleteParams::default()).await?;
    let theirs: Api<Pod> = Api::namespaced(stranger.client().await?, "school");
    let refused = theirs.delete("nobody", &DeleteParams::default()).await;
    assert!(refused.is_err());

    let writes = plane.writes_since(mark).await?;
    let expected = [
        ("create configmaps", 2),
        ("delete configmaps", 1),
        ("patch configmaps", 1),
    ];
    let expected = expected
        .map(|(what, count)| (what.to_owned(), count))
        .into();
    assert_eq!(tally(&writes, "teacher"), expected);
    let patch = writes
        .iter()
        .find(|write| write.user == "teacher" && write.verb == "patch");
    let patch = patch.expect("it was counted");
    assert_eq!(patch.manager.as_deref(), Some("carrel-test"));
    assert_eq!(
        (patch.namespace.as_str(), patch.name.as_str(), patch.code),
        ("school", "two", 200)
    );
    let refused: Vec<_> = writes
        .iter()
        .filter(|write| write.user == "stranger")
        .collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].resource.as_str(), refused[0].code),
        ("pods", 403)
    );

    // From the second mark on nothing of this stands there.
    let mark = plane.mark().await?;
    assert!(tally(&plane.writes_since(mark).await?, "teacher").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_started_again_has_the_same_objects() -> anyhow::Result<()> {
    let test = "an_api_server_that_is_started_again_has_the_same_objects";
    let Some(mut plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    let before = make(&plane, "ada").await?;
    plane.stop_api_server();
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    assert!(pods.get("ada").await.is_err(), "it was stopped");
    assert!(plane.kubectl(&["get", "pods"]).is_err());
    let began = Instant::now();
    plane.start_api_server().await?;
    println!(
        "{test}: the API server is ready again after {:?}",
        began.elapsed()
    );
    assert_eq!(pods.get("ada").await?.metadata.uid, before.metadata.uid);
    // Those who watch it have found it again.
    make(&plane, "bob").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_may_do_what_its_role_says() -> anyhow::Result<()> {
    let test = "a_service_account_may_do_what_its_role_says";
    let Some(plane) = start(test, one_fake_node()).await? else {
        return Ok(());
    };
    plane.kubectl(&["create", "serviceaccount", "reader"])?;
    plane.kubectl(&["create", "role", "reads", "--verb=get", "--resource=pods"])?;
    plane.kubectl(&[
        "create",
        "rolebinding",
        "reads",
        "--role=reads",
        "--serviceaccount=default:reader",
    ])?;
    make(&plane, "ada").await?;
    let reader = plane.service_account("default", "reader")?;
    let pods: Api<Pod> = Api::default_namespaced(reader.client().await?);
    assert_eq!(pods.get("ada").await?.metadata.name.as_deref(), Some("ada"));
    let refused = pods
        .delete("ada", &DeleteParams::default())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
    Ok(())
}
