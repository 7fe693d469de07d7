use carrel_core::lifecycle::Ending;
use serde_json::{Value, json};

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "tests write statuses down where they are used"
)]
fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "w-1", "namespace": "learners-0", "resourceVersion": "71",
            "uid": "0c1f6a52-2b60-4f3a-9f55-7d0a3d7a1c11",
            "creationTimestamp": "2026-07-09T10:00:00Z",
            "labels": {"carrel.dev/class-hash": "abc", "carrel.dev/learner": "ada", "carrel.dev/epoch": "5"},
        },
        "spec": {"nodeName": "node-1", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn read(status: Value) -> SeenPod {
    SeenPod::read(&pod(status)).unwrap()
}

#[test]
fn a_ready_pod_says_whose_it_is_and_where() {
    let ready = json!({"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]});
    let seen = read(ready);
    assert_eq!(seen.life, Life::Running);
    assert_eq!((seen.version, seen.epoch), (71, Some(Epoch(5))));
    assert_eq!(seen.learner, "ada".parse().ok());
    assert_eq!(seen.url(7080).unwrap(), "http://10.1.2.3:7080");
    assert_eq!(read(json!({"phase": "Pending"})).life, Life::Starting);
    let six = read(json!({"podIP": "fd00::7"}));
    assert_eq!(six.url(7080).unwrap(), "http://[fd00::7]:7080");
}

#[test]
fn its_end_is_known_by_the_sidecars_last_word() {
    let message = r#"{"ending":"slept","committed":true,"reason":""}"#;
    let ended = json!({"phase": "Running", "containerStatuses": [
        {"name": "agent", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0},
        {"name": "sidecar", "state": {"terminated": {"exitCode": 0, "message": message}}, "image": "", "imageID": "", "ready": false, "restartCount": 0},
    ]});
    let Life::Ended { farewell, .. } = read(ended).life else {
        panic!("it has ended");
    };
    let farewell = farewell.unwrap();
    assert_eq!((farewell.ending, farewell.committed), (Ending::Slept, true));
}

#[test]
fn an_end_without_a_word_is_told_as_the_kubelet_saw_it() {
    let reason = |status| match read(status).life {
        Life::Ended {
            farewell: None,
            reason,
        } => reason,
        other => panic!("{other:?}"),
    };
    let evicted =
        json!({"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"});
    assert_eq!(reason(evicted), "Evicted: low on ephemeral-storage");
    let status = |name: &str, why: &str, code: i32| json!({"name": name, "state": {"terminated": {"exitCode": code, "reason": why}}, "image": "", "imageID": "", "ready": false, "restartCount": 0});
    let memory = json!({"phase": "Failed", "containerStatuses": [status("sidecar", "Error", 1), status("agent", "OOMKilled", 137)]});
    assert_eq!(reason(memory), "the container 'agent' was ended: OOMKilled");
    let killed = json!({"phase": "Failed", "containerStatuses": [status("sidecar", "Error", 137)]});
    assert_eq!(reason(killed), "its sidecar ended with status 137");
}

#[test]
fn one_that_is_being_deleted_has_its_grace_period() {
    let mut leaving =
        pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
    let until: Timestamp = "2026-07-09T11:00:30Z".parse().unwrap();
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(until));
    let seen = SeenPod::read(&leaving).unwrap();
    assert_eq!(seen.life, Life::Leaving { until });
    assert!(!seen.is_blank());
}

#[test]
fn one_whose_image_cannot_be_pulled_will_never_start() {
    let waiting = |reason: &str| {
        let status = json!({"name": "agent", "state": {"waiting": {"reason": reason, "message": "no such image"}}, "image": "", "imageID": "", "ready": false, "restartCount": 0});
        read(json!({"phase": "Pending", "containerStatuses": [status]})).life
    };
    assert_eq!(waiting("ContainerCreating"), Life::Starting);
    assert_eq!(waiting("ErrImagePull"), Life::Starting, "it is tried again");
    let Life::Ended { reason, .. } = waiting("ImagePullBackOff") else {
        panic!("it will never start");
    };
    assert_eq!(
        reason,
        "the container 'agent' cannot be started: ImagePullBackOff: no such image"
    );
}

#[test]
fn one_that_no_node_takes_says_why() {
    let message = "0/3 nodes are available: 3 Insufficient cpu.";
    let pending = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
    ]});
    assert_eq!(read(pending).waits, format!("no node takes it: {message}"));
    let scheduled =
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
    assert_eq!(read(scheduled).waits, "");
}
