use super::*;
use uuid::Uuid;

fn signer() -> Signer {
    Signer::from_pem(&Signer::generate_pem().expect("randomness")).expect("a key")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[test]
fn a_learner_token_says_whose_it_is_until_its_day_is_over() {
    let signer = signer();
    let verifier = Verifier::new(&[signer.public_key().clone()]).expect("a key");
    let (ada, pod) = ("ada".parse().expect("a label"), PodUid(Uuid::from_u128(7)));
    let token = signer
        .learner_token(&ada, Epoch(3), pod, at(1000))
        .expect("signed");
    let claims = verifier
        .learner(&token, Audience::Vault, at(1001))
        .expect("valid");
    assert_eq!((claims.sub, claims.ep, claims.pod), (ada, Epoch(3), pod));
    let late = at(1000 + LEARNER_SECONDS + LEEWAY_SECONDS + 1);
    assert_eq!(
        verifier.learner(&token, Audience::Vault, late),
        Err(Error::Expired)
    );
    assert_eq!(
        verifier.learner(&token, Audience::Sidecar, at(1001)),
        Err(Error::WrongAudience)
    );
    assert!(verifier.caller(&token, at(1001)).is_err());
}

#[test]
fn a_token_of_another_key_is_not_valid() {
    let (ours, theirs) = (signer(), signer());
    let verifier = Verifier::new(&[ours.public_key().clone()]).expect("a key");
    let bob = "bob".parse().expect("a label");
    let token = theirs
        .caller_token(Caller::Gateway, &bob, Epoch(1), at(50))
        .expect("signed");
    assert_eq!(verifier.caller(&token, at(50)), Err(Error::Invalid));
    assert_eq!(verifier.caller("a.b.c", at(50)), Err(Error::Invalid));
}
