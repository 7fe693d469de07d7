//! Against a scripted API server: each call is answered by the script, and too few or too many fail.

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::Handle;

use super::*;

type Server = Handle<Request<Body>, Response<Body>>;

fn now() -> Timestamp {
    Timestamp::from_second(1_783_591_200).unwrap()
}

fn leadership(identity: &str) -> (Leadership, Server) {
    let (service, server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "carrel");
    let mut registry = carrel_telemetry::registry("0");
    let writes = ApiWrites::register(&mut registry);
    let leadership = Leadership::new(client, "carrel", "lease", identity, now, writes);
    (leadership, server)
}

fn lease(version: u32, holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "lease", "namespace": "carrel", "resourceVersion": version.to_string()},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3},
    })
}

/// Answers the next call, which must be of this method; what it sent.
async fn answer(server: &mut Server, method: &str, status: u16, body: &Value) -> Value {
    let (request, send) = server.next_request().await.expect("a call");
    assert_eq!(request.method(), method);
    let sent = request.into_body().collect_bytes().await.unwrap();
    let response = Response::builder()
        .status(status)
        .body(Body::from(body.to_string().into_bytes()));
    send.send_response(response.unwrap());
    serde_json::from_slice(&sent).unwrap_or(Value::Null)
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_is_taken_when_it_was_seen_unchanged_for_as_long_as_it_lasts() {
    let (ours, mut server) = leadership("b");
    let script = async {
        let began = Instant::now();
        // Renewed once: the time begins anew.
        for version in [7, 8, 8, 8, 8, 8, 8, 8, 8] {
            answer(&mut server, "GET", 200, &lease(version, "a")).await;
        }
        answer(&mut server, "GET", 200, &lease(8, "a")).await;
        let taken = answer(&mut server, "PUT", 200, &lease(9, "b")).await;
        (began.elapsed(), taken)
    };
    let ((_held, at_once), (waited, taken)) = tokio::join!(ours.take(), script);
    assert!(!at_once, "what was seen before is old");
    assert!(waited >= LASTS + AGAIN, "{waited:?}");
    assert_eq!(taken["spec"]["holderIdentity"], "b");
    assert_eq!(taken["spec"]["leaseTransitions"], 4);
    assert_eq!(
        taken["metadata"]["resourceVersion"], "8",
        "by compare-and-set"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_is_taken_at_once_unless_another_is_quicker() {
    let (ours, mut server) = leadership("b");
    let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409, "message": ""});
    let script = async {
        answer(&mut server, "GET", 200, &lease(7, "")).await;
        answer(&mut server, "PUT", 409, &conflict).await;
        answer(&mut server, "GET", 200, &lease(9, "")).await;
        answer(&mut server, "PUT", 200, &lease(10, "b")).await;
    };
    tokio::join!(ours.take(), script);
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_renew_stops_before_the_lease_has_run_out() {
    let (ours, mut server) = leadership("b");
    let cancel = CancellationToken::new();
    let held = Held {
        lease: serde_json::from_value(lease(9, "b")).unwrap(),
        renewed: Instant::now(),
    };
    let began = Instant::now();
    let silent = async {
        // The first renewal is never answered.
        let call = server.next_request().await;
        std::future::pending::<()>().await;
        drop(call);
    };
    tokio::select! {
        kept = ours.keep(held, &cancel, |_| ()) => assert!(kept.is_none()),
        () = silent => {}
    }
    assert_eq!(began.elapsed(), ACTS);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_end_gives_the_lease_back() {
    let (ours, mut server) = leadership("b");
    let cancel = CancellationToken::new();
    let held = Held {
        lease: serde_json::from_value(lease(9, "b")).unwrap(),
        renewed: Instant::now(),
    };
    let until = std::cell::Cell::new(Instant::now());
    let script = async {
        answer(&mut server, "PUT", 200, &lease(10, "b")).await;
        cancel.cancel();
        answer(&mut server, "PUT", 200, &lease(11, "")).await
    };
    let keeps = async {
        let began = Instant::now();
        let kept = ours.keep(held, &cancel, |acts| until.set(acts)).await;
        assert_eq!(until.get(), began + AGAIN + ACTS, "renewed after a pause");
        ours.give_back(kept.expect("it is still ours")).await;
    };
    let ((), given) = tokio::join!(keeps, script);
    assert!(given["spec"]["holderIdentity"].is_null(), "{given}");
}

#[tokio::test(start_paused = true)]
async fn a_term_is_over_when_its_time_is_though_nobody_said_so() {
    let term = Term::default();
    assert!(!term.runs());
    term.lasts(Instant::now() + ACTS);
    tokio::time::advance(ACTS.saturating_sub(Duration::from_millis(1))).await;
    assert!(term.runs());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!term.runs());
    term.lasts(Instant::now() + ACTS);
    term.end();
    assert!(!term.runs());
}
