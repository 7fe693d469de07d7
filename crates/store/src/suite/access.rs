//! Secrets let in, once or until they expire.

use super::fixture::{at, at_once, id, learner};
use crate::SharedStore;
use crate::access::{SecretKind, Subject};

pub async fn a_token_lets_in_until_it_expires(store: SharedStore) {
    let ada = Subject::Learner(learner(&store, "ada").await);
    let (hash, kind) = ([1; 32], SecretKind::Token);
    let granted = store.grant(hash, kind, &ada, at(0), at(10)).await;
    assert!(granted.expect("answered"));
    let subject = store.subject(hash, kind, at(9)).await.expect("read");
    assert_eq!(subject, Some(ada));
    assert_eq!(store.subject(hash, kind, at(10)).await.expect("read"), None);
    let other = store.subject([2; 32], kind, at(9)).await;
    assert_eq!(other.expect("read"), None);
    let nobody = Subject::Learner(id("nobody"));
    let granted = store.grant([3; 32], kind, &nobody, at(0), at(10)).await;
    assert!(!granted.expect("answered"));
}

pub async fn a_secret_is_good_for_its_own_kind(store: SharedStore) {
    let ada = Subject::Learner(learner(&store, "ada").await);
    let code = [4; 32];
    let granted = store.grant(code, SecretKind::Code, &ada, at(0), at(10));
    assert!(granted.await.expect("answered"));
    for kind in [SecretKind::Token, SecretKind::Session] {
        assert_eq!(store.subject(code, kind, at(1)).await.expect("read"), None);
    }
    let session = [5; 32];
    let operator = Subject::Operator;
    let granted = store.grant(session, SecretKind::Session, &operator, at(0), at(10));
    assert!(granted.await.expect("answered"));
    let redeemed = store.redeem(session, at(1)).await;
    assert_eq!(redeemed.expect("answered"), None);
    let subject = store.subject(session, SecretKind::Session, at(1)).await;
    assert_eq!(subject.expect("read"), Some(operator));
}

pub async fn a_code_redeemed_by_twenty_at_once_lets_one_in(store: SharedStore) {
    let ada = Subject::Learner(learner(&store, "ada").await);
    let (code, late) = ([6; 32], [7; 32]);
    for hash in [code, late] {
        let granted = store.grant(hash, SecretKind::Code, &ada, at(0), at(10));
        assert!(granted.await.expect("answered"));
    }
    let redeemed = at_once(20, |_| {
        let store = store.clone();
        async move { store.redeem(code, at(1)).await.expect("answered") }
    })
    .await;
    let let_in: Vec<_> = redeemed.into_iter().flatten().collect();
    assert_eq!(let_in, [ada]);
    let expired = store.redeem(late, at(10)).await;
    assert_eq!(expired.expect("answered"), None);
}

pub async fn revoking_takes_every_secret_of_one_learner(store: SharedStore) {
    let (ada, bob) = (learner(&store, "ada").await, learner(&store, "bob").await);
    for (number, learner) in [(1, &ada), (2, &bob)] {
        let subject = Subject::Learner(learner.clone());
        for kind in [SecretKind::Token, SecretKind::Code, SecretKind::Session] {
            let granted = store.grant([number; 32], kind, &subject, at(0), at(10));
            assert!(granted.await.expect("answered"));
        }
    }
    store.revoke_all(&ada).await.expect("revoked");
    for kind in [SecretKind::Token, SecretKind::Session] {
        let gone = store.subject([1; 32], kind, at(1)).await.expect("read");
        assert_eq!(gone, None);
        let stays = store.subject([2; 32], kind, at(1)).await.expect("read");
        assert_eq!(stays, Some(Subject::Learner(bob.clone())));
    }
    assert_eq!(store.redeem([1; 32], at(1)).await.expect("answered"), None);
    assert!(
        store
            .redeem([2; 32], at(1))
            .await
            .expect("answered")
            .is_some()
    );
}

pub async fn revoking_one_secret_leaves_the_others(store: SharedStore) {
    let ada = Subject::Learner(learner(&store, "ada").await);
    let (one, other) = ([8; 32], [9; 32]);
    for (hash, kind) in [
        (one, SecretKind::Session),
        (one, SecretKind::Token),
        (other, SecretKind::Session),
    ] {
        let granted = store.grant(hash, kind, &ada, at(0), at(10)).await;
        assert!(granted.expect("answered"));
    }
    for _ in 0..2 {
        let revoked = store.revoke(one, SecretKind::Session).await;
        revoked.expect("revoked");
    }
    for (hash, kind, expected) in [
        (one, SecretKind::Session, None),
        (one, SecretKind::Token, Some(&ada)),
        (other, SecretKind::Session, Some(&ada)),
    ] {
        let subject = store.subject(hash, kind, at(1)).await.expect("read");
        assert_eq!(subject.as_ref(), expected);
    }
}

pub async fn expired_secrets_are_swept(store: SharedStore) {
    for (number, expires) in [(1, 10), (2, 20), (3, 30)] {
        let operator = Subject::Operator;
        let kind = SecretKind::Token;
        let granted = store.grant([number; 32], kind, &operator, at(0), at(expires));
        assert!(granted.await.expect("answered"));
    }
    assert_eq!(store.sweep_access(at(20)).await.expect("swept"), 2);
    assert_eq!(store.sweep_access(at(20)).await.expect("swept"), 0);
    let left = store.subject([3; 32], SecretKind::Token, at(20)).await;
    assert_eq!(left.expect("read"), Some(Subject::Operator));
}
