//! Whose a pod becomes, and who may call it.

use carrel_core::{Epoch, PodUid};
use carrel_protocol::sidecar::Phase;
use carrel_protocol::token::{CALLER_SECONDS, Caller, Signer};
use carrel_protocol::{Code, Problem};
use carrel_sidecar::Exit;
use jiff::ToSpan;
use reqwest::Method;
use rustix::process::Signal;
use uuid::Uuid;

use crate::pod::{Pod, kill, learner, now, talkative};

async fn code(answer: reqwest::Response) -> Code {
    answer.json::<Problem>().await.expect("a problem").code
}

#[tokio::test]
async fn the_first_assignment_is_taken_and_repeated_and_no_other() {
    let pod = Pod::blank(talkative()).await;
    let mut foreign = pod.assignment(6);
    foreign.pod = PodUid(Uuid::from_u128(1));
    assert_eq!(code(pod.assign(&foreign).await).await, Code::Conflict);
    let old = now() - (CALLER_SECONDS + 30).seconds();
    let old = pod
        .signer
        .assignment(&pod.assignment(6), old)
        .expect("signed");
    assert_eq!(
        code(pod.assign_signed(old).await).await,
        Code::Unauthenticated
    );
    let stranger = Signer::from_pem(&Signer::generate_pem().expect("random")).expect("a key");
    let forged = stranger
        .assignment(&pod.assignment(6), now())
        .expect("signed");
    assert_eq!(
        code(pod.assign_signed(forged).await).await,
        Code::Unauthenticated
    );
    assert_eq!(pod.assign_signed("nonsense".to_owned()).await.status(), 401);
    assert_eq!(pod.hello().await.phase, Phase::Blank);

    assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 200);
    assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 200);
    assert_eq!(
        code(pod.assign(&pod.assignment(8)).await).await,
        Code::Conflict
    );
    let mut other = pod.assignment(7);
    other.learner = "bob".parse().expect("a label");
    assert_eq!(code(pod.assign(&other).await).await, Code::Conflict);
    let hello = pod.hello_when_settled().await;
    assert_eq!(
        (hello.learner, hello.epoch),
        (Some(learner()), Some(Epoch(7)))
    );
    assert_eq!(hello.phase, Phase::Ready, "{}", hello.detail);
    assert!(hello.agent_connected && !hello.committed);
}

#[tokio::test]
async fn nobody_calls_without_a_token_for_this_learner_and_this_epoch() {
    let pod = Pod::ready(talkative()).await;
    let calls = [
        (Method::GET, "/v1/hello"),
        (Method::GET, "/v1/ready"),
        (Method::POST, "/v1/turns"),
        (
            Method::POST,
            "/v1/turns/00000000-0000-0000-0000-000000000001/stop",
        ),
        (Method::POST, "/v1/sleep"),
        (Method::GET, "/agent/echo/x"),
    ];
    let bob = "bob".parse().expect("a label");
    let stranger = Signer::from_pem(&Signer::generate_pem().expect("random")).expect("a key");
    let token = |signer: &Signer, learner, epoch, time| {
        signer
            .caller_token(Caller::Gateway, learner, Epoch(epoch), time)
            .expect("signed")
    };
    let late = now() - (CALLER_SECONDS + 30).seconds();
    let refused = [
        (401, token(&stranger, &learner(), 7, now())),
        (401, token(&pod.signer, &learner(), 7, late)),
        (401, pod.assignment(7).token),
        (421, token(&pod.signer, &learner(), 6, now())),
        (421, token(&pod.signer, &bob, 7, now())),
    ];
    for (method, path) in calls {
        let bare = pod
            .bare(method.clone(), path)
            .send()
            .await
            .expect("an answer");
        assert_eq!(bare.status(), 401, "{path} without a token");
        for (status, token) in &refused {
            let call = pod.bare(method.clone(), path).bearer_auth(token);
            let answer = call.send().await.expect("an answer");
            assert_eq!(answer.status(), *status, "{path}");
        }
    }
    assert_eq!(pod.said("hello").await, "you said: hello");
}

#[tokio::test]
async fn a_gateway_may_wait_before_the_assignment_has_come() {
    let pod = Pod::blank(talkative()).await;
    let assignment = pod.assignment(7);
    let (hello, assigned) = tokio::join!(pod.hello_when_settled(), pod.assign(&assignment));
    assert_eq!(assigned.status(), 200);
    assert_eq!(hello.phase, Phase::Ready);
}

#[tokio::test]
async fn a_blank_pod_that_is_told_to_end_ends_clean() {
    let mut pod = Pod::blank(talkative()).await;
    kill(&pod.sidecar, Signal::TERM);
    assert_eq!(pod.exit().await, Exit::Clean);
}

#[tokio::test]
async fn the_shim_connects_once_and_its_door_is_gone() {
    let pod = Pod::ready(talkative()).await;
    assert!(!pod.path("shim.sock").exists());
}
