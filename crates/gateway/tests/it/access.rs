//! Who reaches what.

use carrel_gateway::TrustedProxies;
use carrel_store::access::{SecretKind, Subject};
use http::Method;
use jiff::SignedDuration;
use serde_json::json;

use crate::world::{World, accepted, now, streamed};

fn cookie(answer: &crate::client::Answer) -> (String, String) {
    let whole = answer.headers["set-cookie"]
        .to_str()
        .expect("text")
        .to_owned();
    (
        whole.split(';').next().unwrap_or_default().to_owned(),
        whole,
    )
}

#[tokio::test]
async fn a_learners_token_reaches_its_own_paths_only() {
    let world = World::new().await;
    let (ada, bob) = (world.learner("ada").await, world.learner("bob").await);
    let turn = accepted(&bob, "bob", "k", "mine").await;
    let json = ada
        .with("content-type", "application/json")
        .with("idempotency-key", "x");
    for (method, path) in [
        (Method::POST, "/v1/learners/bob/messages".to_owned()),
        (Method::GET, "/v1/learners/bob/messages".to_owned()),
        (Method::GET, "/v1/learners/bob/events".to_owned()),
        (Method::GET, format!("/v1/learners/bob/turns/{turn}")),
        (Method::GET, format!("/v1/learners/ada/turns/{turn}")),
        (Method::POST, format!("/v1/learners/ada/turns/{turn}/stop")),
        (
            Method::GET,
            format!("/v1/learners/ada/turns/{turn}/files/0"),
        ),
        (Method::POST, "/v1/learners/bob/wake".to_owned()),
        (Method::GET, "/l/bob/".to_owned()),
        (Method::GET, "/v1/learners/nobody/messages".to_owned()),
        (Method::GET, "/v1/learners/..%2Fbob/messages".to_owned()),
        (
            Method::GET,
            "/v1/learners/ada%2F..%2Fbob/messages".to_owned(),
        ),
        (Method::GET, "/v1/learners/ada/../bob/messages".to_owned()),
        (Method::GET, "/v1/learners/ADA/messages".to_owned()),
        (Method::GET, "/v1/learners/ada%00/messages".to_owned()),
        (Method::GET, "/v1/learners/ada/turns/not-a-turn".to_owned()),
        (Method::GET, "/v2/learners/ada/messages".to_owned()),
    ] {
        let answer = json.raw(method.clone(), &path, r#"{"text":"x"}"#).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (404, "not_found"),
            "{method} {path}"
        );
    }
    assert_eq!(
        ada.get("/admin/v1/learners").await.is(403).problem(),
        "forbidden"
    );
    let history = bob.get("/v1/learners/bob/messages").await.is(200).json();
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn nobody_and_forged_expired_or_revoked_tokens_are_turned_away() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    let path = "/v1/learners/ada/messages";
    for client in [
        world.nobody(),
        world.nobody().bearer("forged"),
        world.nobody().bearer(""),
        world
            .nobody()
            .with("authorization", "Basic dGhlLWFkbWluLXRva2Vu"),
        world.nobody().with("cookie", "carrel_session=forged"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.is(401).problem(), "unauthenticated");
        assert!(answer.headers.contains_key("www-authenticate"));
        client.get("/admin/v1/learners").await.is(401).problem();
    }
    let tokens = "/admin/v1/learners/ada/tokens";
    let short = world
        .operator()
        .post(tokens, &json!({"ttlSeconds": 0}))
        .await;
    assert_eq!(short.is(400).problem(), "invalid_body");
    ada.get(path).await.is(200);
    world.operator().delete(tokens).await.is(204);
    ada.get(path).await.is(401).problem();
}

#[tokio::test]
async fn a_link_signs_a_browser_in_once_and_its_cookie_changes_nothing_without_our_script() {
    let world = World::new().await;
    world.learner("ada").await;
    let link = world
        .operator()
        .post("/admin/v1/learners/ada/links", &json!({}))
        .await;
    let url = link.is(200).json()["url"]
        .as_str()
        .expect("a link")
        .to_owned();
    let code = url.split_once("/#code=").expect("a code").1.to_owned();
    let both = futures::future::join_all((0..8).map(|_| {
        let (nobody, code) = (world.nobody(), code.clone());
        async move { nobody.post("/v1/sign-in", &json!({"code": code})).await }
    }));
    let answers = both.await;
    let signed_in: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    assert_eq!(signed_in.len(), 1, "a code is worth one use");
    assert_eq!(signed_in[0].json(), json!({"learner": "ada"}));
    let (pair, whole) = cookie(signed_in[0]);
    assert!(
        whole.contains("HttpOnly") && whole.contains("SameSite=Strict"),
        "{whole}"
    );
    let browser = world.nobody().with("cookie", &pair);
    assert_eq!(
        browser.get("/v1/session").await.is(200).json(),
        json!({"learner": "ada"})
    );
    browser.get("/v1/learners/ada/messages").await.is(200);
    let refused = crate::world::post(&browser, "ada", "k", "x").await;
    assert_eq!(refused.is(403).problem(), "forbidden");
    accepted(&browser.with("x-carrel-request", "1"), "ada", "k", "x").await;
    world.nobody().get("/v1/session").await.is(401).problem();
}

#[tokio::test]
async fn a_cookie_is_for_https_only_where_a_trusted_proxy_says_that_the_outside_is() {
    let mut world = World::new().await;
    world.learner("ada").await;
    let claimed = world.cookie("ada", "https").await;
    assert!(!claimed.contains("Secure"), "anybody may say so: {claimed}");
    world.settings.trusted_proxies = TrustedProxies::parse(&["127.0.0.0/8"]).expect("a network");
    world.restart().await;
    let inside = world.cookie("ada", "http").await;
    assert!(!inside.contains("Secure"), "{inside}");
    let outside = world.cookie("ada", "https").await;
    assert!(outside.contains("; Secure"), "{outside}");
}

#[tokio::test]
async fn the_operators_session_reaches_the_console_and_never_an_agent() {
    let world = World::new().await;
    world.learner("ada").await;
    let wrong = world
        .nobody()
        .post("/console/sign-in", &json!({"token": "guess"}))
        .await;
    assert_eq!(wrong.is(401).problem(), "unauthenticated");
    let right = json!({"token": crate::world::ADMIN});
    let signed_in = world.nobody().post("/console/sign-in", &right).await;
    let (pair, _) = cookie(signed_in.is(200));
    let browser = world.nobody().with("cookie", &pair);
    browser.get("/admin/v1/learners").await.is(200);
    let made = json!({"id": "bob"});
    browser
        .post("/admin/v1/learners", &made)
        .await
        .is(403)
        .problem();
    browser
        .with("x-carrel-request", "1")
        .post("/admin/v1/learners", &made)
        .await
        .is(200);
    assert_eq!(browser.get("/l/ada/").await.is(403).problem(), "forbidden");
    assert_eq!(
        world.operator().get("/l/ada/").await.is(403).problem(),
        "forbidden"
    );
}

#[tokio::test]
async fn an_erased_learner_is_gone_and_one_of_its_name_starts_empty() {
    let world = World::new().await;
    let ada = world.learner("ada").await;
    streamed(&ada, "ada", "k", "remember me")
        .await
        .outcome()
        .await;
    let mut events = ada.events("/v1/learners/ada/events", None).await;
    let one = "/admin/v1/learners/ada";
    let busy = world.vault.busy.lock().await;
    world.operator().delete(one).await.is(202);
    while events.next().await.is_some() {}
    world.operator().get(one).await.is(404).problem();
    world.operator().delete(one).await.is(404).problem();
    ada.get("/v1/learners/ada/messages").await.is(401).problem();
    // What is left of it is waited for.
    let operator = world.operator();
    let body = json!({"id": "ada"});
    let (again, ()) = tokio::join!(operator.post("/admin/v1/learners", &body), async {
        // It is asked for before this many other calls are answered.
        for _ in 0..20 {
            world.operator().get(one).await.is(404).problem();
        }
        drop(busy);
    });
    let again = again.is(200);
    assert_eq!(again.json()["newest_snapshot"], json!(null));
    assert_eq!(world.vault.erased.lock().expect("whole").len(), 1);
    let ada = world.client_of("ada").await;
    let history = ada.get("/v1/learners/ada/messages").await.is(200).json();
    assert_eq!(history["messages"], json!([]));
    let said = streamed(&ada, "ada", "k", "hello").await.outcome().await;
    assert_eq!(crate::client::text_of(&said), "You said: hello");
}

#[tokio::test]
async fn what_has_expired_is_removed_when_somebody_is_let_in_and_not_each_time() {
    let world = World::new().await;
    let (now, expired) = (now(), now() - SignedDuration::from_hours(1));
    let keep = async |hash: u8| {
        let (hash, subject) = ([hash; 32], Subject::Operator);
        let kept = world
            .store
            .grant(hash, SecretKind::Session, &subject, expired, expired);
        assert!(kept.await.expect("a store"));
    };
    keep(1).await;
    world.learner("ada").await;
    keep(2).await;
    world.cookie("ada", "http").await;
    let left = world.store.sweep_access(now).await.expect("a store");
    assert_eq!(left, 1, "the first is gone, and the second waits");
}
