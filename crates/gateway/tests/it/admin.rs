//! The operator's API and the pages.

use http::Method;
use serde_json::{Value, json};

use crate::world::{World, streamed};

#[tokio::test]
async fn a_learner_is_made_once_changed_and_listed() {
    let world = World::new().await;
    let operator = world.operator();
    let body = json!({"id": "ada", "aliases": [{"channel": "sms", "external_id": "+1"}]});
    let made = operator
        .post("/admin/v1/learners", &body)
        .await
        .is(200)
        .json();
    assert_eq!(made["state"], "Asleep");
    assert_eq!(made["class"], "default");
    assert_eq!(made["limits_missing"], json!(["memory"]));
    operator.post("/admin/v1/learners", &body).await.is(200);
    let other = json!({"id": "ada"});
    assert_eq!(
        operator
            .post("/admin/v1/learners", &other)
            .await
            .is(409)
            .problem(),
        "conflict"
    );
    let taken = json!({"id": "bob", "aliases": [{"channel": "sms", "external_id": "+1"}]});
    assert_eq!(
        operator
            .post("/admin/v1/learners", &taken)
            .await
            .is(409)
            .problem(),
        "conflict"
    );
    for bad in [
        json!({"id": "Ada"}),
        json!({"id": "x", "class": "none"}),
        json!({"id": "x", "y": 1}),
    ] {
        assert_eq!(
            operator
                .post("/admin/v1/learners", &bad)
                .await
                .is(400)
                .problem(),
            "invalid_body"
        );
    }
    let patch = json!({"aliases": []});
    let changed = operator
        .call(Method::PATCH, "/admin/v1/learners/ada", &patch)
        .await;
    assert_eq!(changed.is(200).json()["aliases"], json!([]));
    operator
        .post("/admin/v1/learners", &json!({"id": "bob"}))
        .await
        .is(200);
    let first = operator
        .get("/admin/v1/learners?limit=1")
        .await
        .is(200)
        .json();
    assert_eq!(
        (&first["learners"][0]["id"], &first["next"]),
        (&json!("ada"), &json!("ada"))
    );
    let rest = operator
        .get("/admin/v1/learners?limit=5&after=ada")
        .await
        .is(200)
        .json();
    assert_eq!(
        (&rest["learners"][0]["id"], &rest["next"]),
        (&json!("bob"), &Value::Null)
    );
    assert_eq!(
        operator
            .get("/admin/v1/learners?limti=5")
            .await
            .is(400)
            .problem(),
        "invalid_request"
    );
}

#[tokio::test]
async fn snapshots_are_listed_and_an_older_one_is_restored() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    for key in ["1", "2"] {
        streamed(&ada, "ada", key, key).await.outcome().await;
    }
    let operator = world.operator();
    let path = "/admin/v1/learners/ada/snapshots";
    let list = operator.get(path).await.is(200).json();
    let snapshots = list["snapshots"].as_array().expect("a list");
    let generations: Vec<_> = snapshots
        .iter()
        .filter_map(|s| s["generation"].as_u64())
        .collect();
    assert_eq!(generations.first(), Some(&2));
    let oldest = snapshots
        .iter()
        .find(|s| s["generation"] == 1)
        .expect("the first");
    let id = oldest["snapshot_id"].as_str().expect("an id");
    let taken = operator.post(path, &json!({})).await.is(200).json();
    assert_eq!(taken["generation"], 2);
    assert_eq!(
        operator.get("/admin/v1/learners/ada").await.json()["newest_snapshot"]["snapshot_id"],
        taken["snapshot_id"]
    );
    let body = json!({"snapshot_id": id});
    let restored = operator
        .post("/admin/v1/learners/ada/restore", &body)
        .await
        .is(200)
        .json();
    assert_eq!(restored["generation"], 3);
    let none = json!({"snapshot_id": "0".repeat(64)});
    let answer = operator.post("/admin/v1/learners/ada/restore", &none).await;
    assert_eq!(answer.is(404).problem(), "not_found");
    let check = operator
        .post(&format!("{path}/{id}/verify"), &json!({}))
        .await;
    assert_eq!(check.is(200).json()["intact"], true);
    assert_eq!(
        operator
            .delete(&format!("{path}/{id}"))
            .await
            .is(409)
            .problem(),
        "conflict"
    );
}

#[tokio::test]
async fn wake_and_sleep_do_what_they_say() {
    let world = World::new().await;
    world.learner("ada").await;
    let operator = world.operator();
    let none = json!({});
    operator
        .post("/admin/v1/learners/ada/wake", &none)
        .await
        .is(202);
    assert_eq!(world.fleet.pod("ada").epoch.0, 1);
    operator
        .post("/admin/v1/learners/ada/sleep", &none)
        .await
        .is(200);
    operator
        .post("/admin/v1/learners/nobody/sleep", &none)
        .await
        .is(404)
        .problem();
}

#[tokio::test]
async fn the_log_of_all_is_read_page_by_page_without_loss() {
    let world = World::new().await;
    for id in ["ada", "bob"] {
        let client = world.learner(id).await;
        streamed(&client, id, "k", "hello").await.outcome().await;
    }
    let operator = world.operator();
    let whole = operator
        .get("/admin/v1/events?limit=1000")
        .await
        .is(200)
        .json();
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/admin/v1/events?limit=3{after}");
        let page = operator.get(&path).await.is(200).json();
        let events = page["events"].as_array().expect("a list").clone();
        if events.is_empty() {
            break;
        }
        paged.extend(events);
        after = format!("&after={}", page["next"].as_str().expect("a cursor"));
    }
    assert_eq!(json!(paged), whole["events"]);
    assert!(
        paged
            .iter()
            .any(|event| event["type"] == "done" && event["learner"] == "bob")
    );
    assert_eq!(
        operator
            .get("/admin/v1/events?after=x")
            .await
            .is(400)
            .problem(),
        "invalid_request"
    );
    let usage = operator
        .get("/admin/v1/usage?by=day&since=2020-01-01")
        .await
        .is(200)
        .json();
    assert_eq!(usage["rows"], json!([]));
    operator
        .get("/admin/v1/usage?by=moon")
        .await
        .is(400)
        .problem();
}

#[tokio::test]
async fn a_class_is_written_whole_or_refused_with_every_reason() {
    let world = World::new().await;
    let operator = world.operator();
    let spec = json!({"turn": {"timeoutSeconds": 120}});
    let put = operator
        .call(Method::PUT, "/admin/v1/classes/quick", &spec)
        .await
        .is(200)
        .json();
    assert_eq!(put["spec"]["turn"]["maxQueued"], 20);
    assert_eq!(
        operator.get("/admin/v1/classes/quick").await.is(200).json(),
        put
    );
    let bad = json!({"agent": {"port": 80}, "resources": {"pids": 1}});
    let refused = operator
        .call(Method::PUT, "/admin/v1/classes/quick", &bad)
        .await;
    assert_eq!(refused.is(400).problem(), "invalid_body");
    assert!(
        refused.text.contains("spec.agent.port") && refused.text.contains("spec.resources.pids")
    );
    let unknown = json!({"turn": {"maxQeued": 1}});
    operator
        .call(Method::PUT, "/admin/v1/classes/quick", &unknown)
        .await
        .is(400)
        .problem();
    operator
        .get("/admin/v1/classes/none")
        .await
        .is(404)
        .problem();
    let list = operator.get("/admin/v1/classes").await.is(200).json();
    assert!(
        list["classes"]
            .as_array()
            .is_some_and(|list| list.iter().any(|c| c["name"] == "quick"))
    );
}

#[tokio::test]
async fn the_pages_come_with_a_policy_that_lets_nothing_else_in() {
    let world = World::new().await;
    let nobody = world.nobody();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/console", "text/html; charset=utf-8"),
        ("/assets/chat.js", "text/javascript; charset=utf-8"),
        ("/assets/chat.css", "text/css; charset=utf-8"),
    ] {
        let page = nobody.get(path).await;
        assert_eq!(page.is(200).headers["content-type"], kind, "{path}");
        let policy = page.headers["content-security-policy"]
            .to_str()
            .expect("text");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        let tag = page.headers["etag"].to_str().expect("text").to_owned();
        let known = nobody.with("if-none-match", &tag).get(path).await;
        assert_eq!(known.is(304).text, "");
    }
    for path in [
        "/assets/none.js",
        "/assets/../Cargo.toml",
        "/assets/..%2fCargo.toml",
    ] {
        assert_eq!(
            nobody.get(path).await.is(404).problem(),
            "not_found",
            "{path}"
        );
    }
    assert_eq!(nobody.get("/healthz").await.is(200).text, "alive\n");
    assert_eq!(nobody.get("/readyz").await.is(200).text, "ready\n");
}
