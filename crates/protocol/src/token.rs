//! Signed tokens: JWT (RFC 7519) with EdDSA over Ed25519 (RFC 8037), known by `kid`, verified by public key alone.
//!
//! Three kinds: a learner's token for router and vault (24 h), a caller's token for a sidecar (60 s), and the assignment
//! itself (60 s). Time is an argument; a leeway of [`LEEWAY_SECONDS`] allows for clocks that differ.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carrel_core::{Epoch, LearnerId, PodUid};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sidecar::Assignment;

/// How far clocks may differ.
pub const LEEWAY_SECONDS: i64 = 5;
/// How long a learner's token lives.
pub const LEARNER_SECONDS: i64 = 24 * 60 * 60;
/// How long a caller's token and an assignment live.
pub const CALLER_SECONDS: i64 = 60;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why a token or key is not taken. Never holds any of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a token, or signed by nobody that is known here.
    #[error("the token is not valid")]
    Invalid,
    /// Its time is over, or has not come.
    #[error("the token has expired")]
    Expired,
    /// It is for somebody else.
    #[error("the token is not meant for this")]
    WrongAudience,
    /// The text is no Ed25519 key.
    #[error(
        "the key must be an Ed25519 private key in PEM (PKCS #8), as 'openssl genpkey -algorithm ed25519' writes it"
    )]
    BadKey,
}

/// For whom a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// The router.
    Router,
    /// The vault.
    Vault,
    /// A sidecar that serves its learner.
    Sidecar,
    /// A blank sidecar.
    BlankSidecar,
    /// The vault, in the name of operators.
    VaultAdmin,
    /// The vault, for an older state of a learner who sleeps.
    VaultRestore,
    /// Another gateway, for a learner's stream.
    Gateway,
}

#[derive(Serialize, Deserialize)]
struct Times {
    iat: i64,
    exp: i64,
}

/// What a learner's token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerClaims {
    /// The learner.
    pub sub: LearnerId,
    /// The incarnation.
    pub ep: Epoch,
    /// The pod.
    pub pod: PodUid,
    /// Whom it is for.
    pub aud: Vec<Audience>,
}

/// Who calls a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A gateway.
    Gateway,
    /// A controller or local fleet.
    Controller,
}

/// What a caller's token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerClaims {
    /// Who calls.
    pub iss: Caller,
    /// The learner.
    pub sub: LearnerId,
    /// The incarnation.
    pub ep: Epoch,
    /// Whom it is for.
    pub aud: Audience,
}

#[derive(Serialize, Deserialize)]
struct AdminClaims {
    iss: Caller,
    aud: Audience,
}

#[derive(Serialize, Deserialize)]
struct AssignmentClaims {
    aud: Audience,
    assignment: Assignment,
}

#[derive(Serialize, Deserialize)]
struct Timed<T> {
    #[serde(flatten)]
    times: Times,
    #[serde(flatten)]
    claims: T,
}

/// A public key by which tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublicKey {
    /// Its name: the first 16 hexadecimal digits of its SHA-256.
    pub kid: String,
    /// The 32 bytes, base64url without padding (RFC 8037 `x`).
    pub x: String,
}

/// Signs tokens.
#[derive(Clone)]
pub struct Signer {
    encoding: EncodingKey,
    public: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.public.kid)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A new private key as PEM (PKCS #8), for a file of mode 0600.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate_pem() -> Result<String, Error> {
        let key = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new());
        let der = key.map_err(|_| Error::BadKey)?;
        Ok(format!(
            "{PEM_BEGIN}\n{}\n{PEM_END}\n",
            STANDARD.encode(der.as_ref())
        ))
    }

    /// Reads a private key from PEM (PKCS #8).
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is none.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let body = pem
            .trim()
            .strip_prefix(PEM_BEGIN)
            .and_then(|t| t.strip_suffix(PEM_END));
        let body: String = body.ok_or(Error::BadKey)?.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| Error::BadKey)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| Error::BadKey)?;
        let raw = pair.public_key().as_ref();
        Ok(Self {
            encoding: EncodingKey::from_ed_der(&der),
            public: PublicKey::from_raw(raw),
        })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign<T: Serialize>(&self, claims: T, now: Timestamp, seconds: i64) -> Result<String, Error> {
        let iat = now.as_second();
        let header = Header {
            kid: Some(self.public.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let timed = Timed {
            times: Times {
                iat,
                exp: iat + seconds,
            },
            claims,
        };
        jsonwebtoken::encode(&header, &timed, &self.encoding).map_err(|_| Error::BadKey)
    }

    /// A learner's token for router and vault.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn learner_token(
        &self,
        learner: &LearnerId,
        epoch: Epoch,
        pod: PodUid,
        now: Timestamp,
    ) -> Result<String, Error> {
        let aud = vec![Audience::Router, Audience::Vault];
        let claims = LearnerClaims {
            sub: learner.clone(),
            ep: epoch,
            pod,
            aud,
        };
        self.sign(claims, now, LEARNER_SECONDS)
    }

    /// A caller's token for the sidecar of a learner's incarnation.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn caller_token(
        &self,
        caller: Caller,
        learner: &LearnerId,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<String, Error> {
        let claims = CallerClaims {
            iss: caller,
            sub: learner.clone(),
            ep: epoch,
            aud: Audience::Sidecar,
        };
        self.sign(claims, now, CALLER_SECONDS)
    }

    /// A gateway's token for what operators ask of the vault.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn vault_admin_token(&self, now: Timestamp) -> Result<String, Error> {
        let claims = AdminClaims {
            iss: Caller::Gateway,
            aud: Audience::VaultAdmin,
        };
        self.sign(claims, now, CALLER_SECONDS)
    }

    /// The controller's token for an older state of a learner who sleeps after this epoch.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn vault_restore_token(
        &self,
        learner: &LearnerId,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<String, Error> {
        let claims = CallerClaims {
            iss: Caller::Controller,
            sub: learner.clone(),
            ep: epoch,
            aud: Audience::VaultRestore,
        };
        self.sign(claims, now, CALLER_SECONDS)
    }

    /// A gateway's token for a learner's stream at another gateway.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn relay_token(&self, learner: &LearnerId, now: Timestamp) -> Result<String, Error> {
        let claims = CallerClaims {
            iss: Caller::Gateway,
            sub: learner.clone(),
            ep: Epoch(0),
            aud: Audience::Gateway,
        };
        self.sign(claims, now, CALLER_SECONDS)
    }

    /// A signed assignment.
    ///
    /// # Errors
    /// [`Error::BadKey`] when signing fails.
    pub fn assignment(&self, assignment: &Assignment, now: Timestamp) -> Result<String, Error> {
        let claims = AssignmentClaims {
            aud: Audience::BlankSidecar,
            assignment: assignment.clone(),
        };
        self.sign(claims, now, CALLER_SECONDS)
    }
}

impl PublicKey {
    fn from_raw(raw: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, raw);
        let digits: Vec<_> = digest
            .as_ref()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        let kid = digits.concat();
        Self {
            kid,
            x: URL_SAFE_NO_PAD.encode(raw),
        }
    }
}

/// Verifies tokens by a set of public keys.
#[derive(Clone)]
pub struct Verifier {
    keys: BTreeMap<String, DecodingKey>,
    validation: Validation,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("kids", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Knows these keys.
    ///
    /// # Errors
    /// [`Error::BadKey`] when one is malformed.
    pub fn new(keys: &[PublicKey]) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for key in keys {
            let decoding = DecodingKey::from_ed_components(&key.x).map_err(|_| Error::BadKey)?;
            known.insert(key.kid.clone(), decoding);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            keys: known,
            validation,
        })
    }

    fn verify<T: DeserializeOwned>(&self, token: &str, now: Timestamp) -> Result<T, Error> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Error::Invalid)?;
        let key = header
            .kid
            .and_then(|kid| self.keys.get(&kid))
            .ok_or(Error::Invalid)?;
        let timed: Timed<T> = jsonwebtoken::decode(token, key, &self.validation)
            .map_err(|_| Error::Invalid)?
            .claims;
        let now = now.as_second();
        if now > timed.times.exp + LEEWAY_SECONDS || now < timed.times.iat - LEEWAY_SECONDS {
            return Err(Error::Expired);
        }
        Ok(timed.claims)
    }

    /// What a learner's token for `audience` says.
    ///
    /// # Errors
    /// When it is not valid now, here.
    pub fn learner(
        &self,
        token: &str,
        audience: Audience,
        now: Timestamp,
    ) -> Result<LearnerClaims, Error> {
        let claims: LearnerClaims = self.verify(token, now)?;
        if claims.aud.contains(&audience) {
            Ok(claims)
        } else {
            Err(Error::WrongAudience)
        }
    }

    /// What a caller's token says.
    ///
    /// # Errors
    /// When it is not valid now, here.
    pub fn caller(&self, token: &str, now: Timestamp) -> Result<CallerClaims, Error> {
        let claims: CallerClaims = self.verify(token, now)?;
        if claims.aud == Audience::Sidecar {
            Ok(claims)
        } else {
            Err(Error::WrongAudience)
        }
    }

    /// Whether a token is a gateway's for what operators ask of the vault.
    ///
    /// # Errors
    /// When it is not valid now, here.
    pub fn vault_admin(&self, token: &str, now: Timestamp) -> Result<(), Error> {
        let claims: AdminClaims = self.verify(token, now)?;
        match (claims.aud, claims.iss) {
            (Audience::VaultAdmin, Caller::Gateway) => Ok(()),
            _ => Err(Error::WrongAudience),
        }
    }

    /// For whom the controller asks for an older state, and after which epoch they sleep.
    ///
    /// # Errors
    /// When the token is not valid now, here.
    pub fn vault_restore(&self, token: &str, now: Timestamp) -> Result<CallerClaims, Error> {
        let claims: CallerClaims = self.verify(token, now)?;
        match (claims.aud, claims.iss) {
            (Audience::VaultRestore, Caller::Controller) => Ok(claims),
            _ => Err(Error::WrongAudience),
        }
    }

    /// Whose stream a gateway asks for.
    ///
    /// # Errors
    /// When the token is not valid now, here.
    pub fn relay(&self, token: &str, now: Timestamp) -> Result<LearnerId, Error> {
        let claims: CallerClaims = self.verify(token, now)?;
        match (claims.aud, claims.iss) {
            (Audience::Gateway, Caller::Gateway) => Ok(claims.sub),
            _ => Err(Error::WrongAudience),
        }
    }

    /// The assignment inside its signature.
    ///
    /// # Errors
    /// When it is not valid now, here.
    pub fn assignment(&self, token: &str, now: Timestamp) -> Result<Assignment, Error> {
        let claims: AssignmentClaims = self.verify(token, now)?;
        if claims.aud == Audience::BlankSidecar {
            Ok(claims.assignment)
        } else {
            Err(Error::WrongAudience)
        }
    }
}

#[cfg(test)]
mod tests;
