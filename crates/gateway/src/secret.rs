//! Secrets that let people in: 256 random bits; only their SHA-256 is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrel_store::access::SecretHash;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A fresh secret, to be shown once: 256 random bits in base64url.
pub fn fresh() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// SHA-256 of a secret, as the store keeps it.
pub fn hash_of(secret: &str) -> SecretHash {
    sha256(secret.as_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether a secret has this hash, in a time that says nothing of it.
pub(crate) fn matches(secret: &str, hash: &SecretHash) -> bool {
    hash_of(secret).ct_eq(hash).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_hash_only() {
        let (one, other) = (fresh(), fresh());
        assert_eq!(one.len(), 43);
        assert!(matches(&one, &hash_of(&one)));
        assert!(!matches(&other, &hash_of(&one)));
    }
}
