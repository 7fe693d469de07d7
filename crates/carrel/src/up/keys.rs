//! Key files of the roles: made on first use by whoever signs, read by whoever verifies.

use std::path::Path;

use anyhow::Context as _;
use carrel_protocol::token::{PublicKey, Signer, Verifier};
use carrel_vault::Keyring;
use uuid::Uuid;

use super::{check, data};
use crate::exit::{Failure, Kind};

/// All keys of a new installation, by the names that their files have unless the configuration says otherwise.
pub(crate) fn create() -> anyhow::Result<Vec<(&'static str, String)>> {
    let pair = || -> anyhow::Result<(String, String)> {
        let pem = Signer::generate_pem()?;
        let public = list(&[Signer::from_pem(&pem)?.public_key().clone()])?;
        Ok((pem, public))
    };
    let ((signing, signing_public), (gateway, gateway_public)) = (pair()?, pair()?);
    Ok(vec![
        ("admin.token", format!("{}\n", carrel_gateway::new_secret())),
        ("gateway.key", gateway),
        ("gateway.pub", gateway_public),
        ("kek", Keyring::new_line()?),
        ("signing.key", signing),
        ("signing.pub", signing_public),
    ])
}

/// The text of a file of public keys.
fn list(keys: &[PublicKey]) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(keys)?;
    text.push('\n');
    Ok(text)
}

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
        replace(public, &list(&keys)?).with_context(|| format!("writing {}", public.display()))?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn new_keys_serve_every_role_and_nothing_is_written_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made: BTreeMap<_, _> = create().unwrap().into_iter().collect();
        for (name, text) in &made {
            carrel_vault::durable::make_file(&at(name), text.as_bytes()).unwrap();
        }
        let changed = || {
            std::fs::metadata(folder.path())
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = changed();
        for role in ["signing", "gateway"] {
            let (private, public_half) = (at(&format!("{role}.key")), at(&format!("{role}.pub")));
            let signer = published(&private, &public_half).unwrap();
            let known = public(&public_half, "keys", "nobody").unwrap();
            assert_eq!(known, [signer.public_key().clone()], "{role}");
        }
        assert_eq!(
            admin_token(&at("admin.token")).unwrap(),
            made["admin.token"].trim()
        );
        Keyring::read(&at("kek")).unwrap();
        assert_eq!(changed(), before, "a mounted Secret cannot be written to");
        let found = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(found, made.len());
        let again: BTreeMap<_, _> = create().unwrap().into_iter().collect();
        for (name, text) in &made {
            assert_ne!(*text, again[name], "{name} is drawn anew");
        }
    }
}
