//! Which of a server's secrets are seen where, judged by the table of who may hold what.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carrel_core::LearnerId;
use carrel_core::invariants::{Holder, Secret, secrets_stay_home};
use carrel_tests::machine::pods;
use carrel_tests::{Setup, Up, agent};
use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::shell;

const PROVIDER_KEY: &str = "sk-planted-key-of-a-provider-2718281828";

/// The secrets of the server's files, in each form in which they would be seen.
fn of_the_server(up: &Up) -> anyhow::Result<Vec<(Secret, Vec<u8>)>> {
    let mut all = vec![(Secret::ProviderKey, PROVIDER_KEY.into())];
    for (file, secret) in [
        ("kek", Secret::KeyEncryptionKey),
        ("signing.key", Secret::SigningKey),
    ] {
        let text = fs::read_to_string(up.data().join(file))?;
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        let text: String = lines.collect();
        let bytes = STANDARD.decode(&text)?;
        // The seed is the last of what the file of a signing key has, and a key-encryption key is nothing else.
        let key = bytes[bytes.len().saturating_sub(32)..].to_vec();
        all.extend([(secret.clone(), key), (secret, text.into_bytes())]);
    }
    Ok(all)
}

/// The learners whose tokens are in these bytes, as a token itself says.
fn tokens(bytes: &[u8]) -> Vec<LearnerId> {
    let is_of_a_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let words = bytes.split(|byte| !is_of_a_token(byte));
    let words = words.filter(|word| word.starts_with(b"eyJ"));
    words
        .filter_map(|word| {
            let claims = word.split(|byte| *byte == b'.').nth(1)?;
            let claims: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
            // Those that router and vault take; others are calls to the sidecar, which last for a minute.
            let is_learners = claims["aud"].to_string().contains("vault");
            claims["sub"].as_str().filter(|_| is_learners)?.parse().ok()
        })
        .collect()
}

/// What a role is seen to hold.
fn held(holder: &Holder, secrets: &[(Secret, Vec<u8>)], bytes: &[u8]) -> Vec<(Holder, Secret)> {
    let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let found = secrets.iter().filter(|(_, wanted)| has(wanted));
    let found = found.map(|(secret, _)| secret.clone());
    let tokens = tokens(bytes).into_iter().map(Secret::LearnerToken);
    found
        .chain(tokens)
        .map(|secret| (holder.clone(), secret))
        .collect()
}

/// All that a process has in its memory and can write to. Most of what allocators reserve was never touched: those pages hold nothing.
fn memory(pid: u32) -> anyhow::Result<Vec<u8>> {
    /// It is in memory, or swapped out: bits 63 and 62 of an entry of proc_pid_pagemap(5).
    const IS_THERE: u8 = 0b1100_0000;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let file = File::open(format!("/proc/{pid}/mem"))?;
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let mut sizes = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("KernelPageSize:"));
    let size = sizes
        .next()
        .and_then(|size| size.trim().strip_suffix(" kB"));
    let size = size.context("a page's size")?.parse::<u64>()? * 1024;
    let mut page = vec![0; usize::try_from(size)?];
    let mut all = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("a range")?;
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').context("two ends")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut entries = vec![0; usize::try_from((to - from) / size * 8)?];
        pages.read_exact_at(&mut entries, from / size * 8)?;
        for (at, entry) in (from..to).step_by(page.len()).zip(entries.chunks_exact(8)) {
            // Some cannot be read.
            if entry[7] & IS_THERE != 0 && file.read_exact_at(&mut page, at).is_ok() {
                all.extend_from_slice(&page);
            }
        }
    }
    Ok(all)
}

#[tokio::test]
async fn the_secrets_of_a_server_stay_with_those_who_may_hold_them() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    fs::write(&key, PROVIDER_KEY)?;
    let provider = json!({
        "name": "planted", "dialect": "Anthropic", "baseUrl": "http://127.0.0.1:9", "keys": [key],
    });
    let names = ["eve", "nan"];
    let mut documents = vec![shell::class("shell", &json!({}))];
    documents.extend(names.map(|name| agent::learner(name, "shell")));
    let setup = Setup {
        documents,
        settings: Some(json!({"providers": [provider]})),
        ..Setup::default()
    };
    let Some(up) = Up::start("the_secrets_of_a_server", setup).await? else {
        return Ok(());
    };
    let secrets = of_the_server(&up)?;
    let look = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; \
        find /workspace /tmp /run /dev/shm -type f -exec cat {} +";
    let mut holdings = Vec::new();
    for name in names {
        let said = up.api.reply(name, look).await?;
        ensure!(said.contains("ANTHROPIC_AUTH_TOKEN"), "it looks: {said}");
        holdings.extend(held(
            &Holder::Agent(name.parse()?),
            &secrets,
            said.as_bytes(),
        ));
    }
    if geteuid().is_root() {
        let server = memory(up.pid())?;
        for (secret, bytes) in &secrets[..1] {
            let found = held(&Holder::Router, &[(secret.clone(), bytes.clone())], &server);
            ensure!(
                !found.is_empty(),
                "the search finds what there is: {secret:?}"
            );
        }
        let mut own = Vec::new();
        for pod in pods(up.pid()) {
            let bytes = memory(pod.sidecar)?;
            let whose = tokens(&bytes)
                .pop()
                .context("a sidecar has its learner's token")?;
            holdings.extend(held(&Holder::Sidecar(whose.clone()), &secrets, &bytes));
            let shim = memory(pod.shim.context("its shim")?)?;
            holdings.extend(held(&Holder::Agent(whose.clone()), &secrets, &shim));
            own.push(whose.to_string());
        }
        own.sort();
        ensure!(own == names, "{own:?}");
    }
    let pairs = || holdings.iter().map(|(holder, secret)| (holder, secret));
    ensure!(secrets_stay_home(pairs()), "{holdings:?}");
    Ok(())
}
