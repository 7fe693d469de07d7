//! Key files of the roles: made on first use by whoever signs, read by whoever verifies.

use std::path::Path;

use anyhow::Context as _;
use carrel_protocol::token::{PublicKey, Signer, Verifier};
use uuid::Uuid;

use super::{check, data};
use crate::exit::{Failure, Kind};

/// The token that opens the admin API.
pub(super) fn admin_token(file: &Path) -> anyhow::Result<String> {
    let token = data::read_or_make(file, || Ok(carrel_gateway::new_secret()))?;
    Ok(token.trim().to_owned())
}

/// A private key.
pub(super) fn signer(file: &Path) -> anyhow::Result<Signer> {
    let pem = data::read_or_make(file, || Ok(Signer::generate_pem()?))?;
    check::signer(file, &pem)
}

/// A private key whose public half others read from `public`.
pub(super) fn published(file: &Path, public: &Path) -> anyhow::Result<Signer> {
    let signer = signer(file)?;
    let known = if public.exists() {
        read(public)?
    } else {
        Vec::new()
    };
    if !known.contains(signer.public_key()) {
        let keys = [known, vec![signer.public_key().clone()]].concat();
        let mut text = serde_json::to_string(&keys)?;
        text.push('\n');
        replace(public, &text).with_context(|| format!("writing {}", public.display()))?;
    }
    Ok(signer)
}

/// Whoever reads meanwhile reads all of the old or all of the new.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}", Uuid::new_v4()));
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

/// The public keys of a file, made by the role that has the private one.
pub(super) fn public(file: &Path, key: &str, made_by: &str) -> anyhow::Result<Vec<PublicKey>> {
    if !file.exists() {
        let message = format!(
            "{key}: {} is not there: start '{made_by}' first, which makes it, or copy it from there",
            file.display()
        );
        return Err(Failure::new(Kind::Usage, message).into());
    }
    read(file)
}

fn read(file: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let keys: Vec<PublicKey> = serde_json::from_slice(&text).map_err(|error| {
        let message = format!(
            "{}: {error}; it must be a list of public keys, each with 'kid' and 'x'",
            file.display()
        );
        Failure::new(Kind::Usage, message)
    })?;
    Verifier::new(&keys).with_context(|| format!("reading {}", file.display()))?;
    Ok(keys)
}
