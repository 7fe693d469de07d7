//! Who calls: a learner's incarnation by its signed token, a program by a router key, or anybody on loopback if the
//! operator says so.

use std::net::IpAddr;

use carrel_core::{Epoch, LearnerId};
use carrel_llm::{Failure, Kind};
use carrel_protocol::token::{Audience, Verifier};
use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use crate::options::Callers;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// An incarnation of a learner: metered and budgeted.
    Learner { learner: LearnerId, epoch: Epoch },
    /// A program at a desk: metered.
    Desk,
}

/// Finds out who calls. The fence is the store's to decide.
pub(crate) fn identify(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    verifier: &Verifier,
    callers: &Callers,
    now: Timestamp,
) -> Result<Caller, Failure> {
    let refuse = |why: &str| Err(Failure::new(Kind::Unauthenticated, why));
    let credential = credential(headers);
    if let Some(credential) = credential {
        // A learner's token is never taken for less: an expired one does not become an unbudgeted caller.
        if is_token(credential) {
            return match verifier.learner(credential, Audience::Router, now) {
                Ok(claims) => Ok(Caller::Learner {
                    learner: claims.sub,
                    epoch: claims.ep,
                }),
                Err(error) => refuse(&error.to_string()),
            };
        }
        let matches = |key: &secrecy::SecretString| {
            bool::from(key.expose_secret().as_bytes().ct_eq(credential.as_bytes()))
        };
        if callers.keys.iter().any(matches) {
            return Ok(Caller::Desk);
        }
    }
    let is_local = peer.is_some_and(|address| address.to_canonical().is_loopback());
    // A browser names its page's origin: pages from elsewhere must not spend through an open loopback.
    if callers.open_on_loopback && is_local && !headers.contains_key(ORIGIN) {
        return Ok(Caller::Desk);
    }
    match credential {
        Some(_) => refuse("the key is not known here"),
        None => refuse(
            "a key of 'router.keys' in carrel.yaml, the admin token or an incarnation's own token is needed, as 'Authorization: Bearer …'",
        ),
    }
}

fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &http::HeaderName| headers.get(name)?.to_str().ok();
    let bearer = text(&AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    let key = || headers.get("x-api-key")?.to_str().ok().map(str::trim);
    bearer
        .or_else(key)
        .filter(|credential| !credential.is_empty())
}

/// Whether a credential has the shape of a JWT (RFC 7519): three parts, the first of which opens a JSON object.
fn is_token(credential: &str) -> bool {
    credential.starts_with("eyJ") && credential.split('.').count() == 3
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use carrel_core::PodUid;
    use carrel_protocol::token::Signer;
    use uuid::Uuid;

    use super::*;

    const LOCAL: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ask(
        credential: Option<(&str, String)>,
        peer: Option<IpAddr>,
        open: bool,
    ) -> Result<Caller, Kind> {
        let signer = signer();
        let verifier = Verifier::new(&[signer.public_key().clone()]).unwrap();
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = credential {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let callers = Callers {
            keys: vec!["desk-key".into(), "other-key".into()],
            open_on_loopback: open,
        };
        identify(&headers, peer, &verifier, &callers, at(5_000)).map_err(|failure| failure.kind)
    }

    fn signer() -> Signer {
        use std::sync::OnceLock;
        static PEM: OnceLock<String> = OnceLock::new();
        Signer::from_pem(PEM.get_or_init(|| Signer::generate_pem().unwrap())).unwrap()
    }

    fn token(second: i64) -> String {
        let ada = "ada".parse().unwrap();
        let pod = PodUid(Uuid::from_u128(3));
        signer()
            .learner_token(&ada, Epoch(4), pod, at(second))
            .unwrap()
    }

    #[test]
    fn a_learner_is_known_by_its_token_in_either_header() {
        let learner = Ok(Caller::Learner {
            learner: "ada".parse().unwrap(),
            epoch: Epoch(4),
        });
        assert_eq!(
            ask(
                Some(("authorization", format!("Bearer {}", token(4_990)))),
                None,
                false
            ),
            learner
        );
        assert_eq!(ask(Some(("x-api-key", token(4_990))), None, false), learner);
    }

    #[test]
    fn an_expired_token_does_not_become_an_unbudgeted_caller_on_an_open_loopback() {
        let old = Some(("x-api-key", token(-200_000)));
        assert_eq!(ask(old, LOCAL, true), Err(Kind::Unauthenticated));
    }

    #[test]
    fn a_desk_needs_a_key_unless_loopback_is_open() {
        assert_eq!(
            ask(
                Some(("authorization", "bearer other-key".into())),
                None,
                false
            ),
            Ok(Caller::Desk)
        );
        assert_eq!(
            ask(Some(("x-api-key", "wrong".into())), LOCAL, false),
            Err(Kind::Unauthenticated)
        );
        assert_eq!(ask(None, LOCAL, false), Err(Kind::Unauthenticated));
        assert_eq!(ask(None, LOCAL, true), Ok(Caller::Desk));
        assert_eq!(
            ask(
                Some(("origin", "https://elsewhere.example".into())),
                LOCAL,
                true
            ),
            Err(Kind::Unauthenticated)
        );
        let remote = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(ask(None, remote, true), Err(Kind::Unauthenticated));
        assert_eq!(ask(None, None, true), Err(Kind::Unauthenticated));
    }
}
