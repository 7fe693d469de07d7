//! `carrel learner`: make, look at, wake, put to sleep, let in, erase.

use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_protocol::gateway::{
    AliasBody, CreateLearner, CreateToken, Learner, LearnerList, Link, PatchLearner, Token,
};
use reqwest::Method;

use super::{chat, confirm, logs};
use crate::cli::{self, LearnerCommand, Wait};
use crate::client::Client;
use crate::exit::{Failure, Kind, kind_of};
use crate::output::{self, Rows, age};

const HEADERS: [&str; 9] = [
    "NAME",
    "STATE",
    "CLASS",
    "LAST-ACTIVE",
    "COST-TODAY",
    "AGE",
    "POD",
    "SNAPSHOT",
    "MESSAGE",
];
/// Between looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn run(command: LearnerCommand) -> anyhow::Result<()> {
    match command {
        LearnerCommand::Create {
            id,
            class,
            aliases,
            client,
        } => create(&id, class, &aliases, &client).await,
        LearnerCommand::Ls { client } => ls(&client).await,
        LearnerCommand::Show { id, client } => {
            let learner: Learner = Client::find(&client).await?.get(&path(&id, "")).await?;
            output::one(&learner, &id, &client)
        }
        LearnerCommand::Wake { id, wait, client } => {
            let awake = |state| matches!(state, LearnerState::Ready | LearnerState::Busy);
            order(&id, "/wake", wait, &client, awake, "awake").await
        }
        LearnerCommand::Sleep { id, wait, client } => {
            let asleep = |state| state == LearnerState::Asleep;
            order(&id, "/sleep", wait, &client, asleep, "asleep").await
        }
        LearnerCommand::Set {
            id,
            class,
            aliases,
            client,
        } => set(&id, class, &aliases, &client).await,
        LearnerCommand::Chat {
            id,
            message,
            client,
        } => chat::run(&id, message.as_deref(), &client).await,
        LearnerCommand::Logs { id, follow, client } => logs::run(&id, follow, &client).await,
        LearnerCommand::Token {
            id,
            ttl,
            revoke,
            client,
        } => token(&id, ttl, revoke, &client).await,
        LearnerCommand::Link { id, client } => {
            let server = Client::find(&client).await?;
            let link: Link = server
                .post(&path(&id, "/links"), &serde_json::json!({}))
                .await?;
            match client.output {
                cli::Output::Table | cli::Output::Wide | cli::Output::Name => {
                    output::line(&link.url)
                }
                cli::Output::Json | cli::Output::Yaml => output::one(&link, &id, &client),
            }
        }
        LearnerCommand::Rm {
            id,
            yes,
            wait,
            client,
        } => rm(&id, yes, wait, &client).await,
    }
}

pub(super) fn path(id: &str, rest: &str) -> String {
    format!("/admin/v1/learners/{}{rest}", segment(id))
}

/// A path segment of which nothing is special (RFC 3986).
pub(super) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect::<Vec<_>>()
        .concat()
}

async fn create(
    id: &str,
    class: Option<String>,
    aliases: &[String],
    flags: &cli::Client,
) -> anyhow::Result<()> {
    let aliases = parsed(aliases)?;
    let id = id
        .parse()
        .map_err(|error: carrel_core::id::Error| Failure::new(Kind::Usage, error.to_string()))?;
    let body = CreateLearner { id, class, aliases };
    let server = Client::find(flags).await?;
    let was_there = server.get::<Learner>(&path(body.id.as_str(), "")).await;
    let learner: Learner = server.post("/admin/v1/learners", &body).await?;
    if was_there.is_ok() {
        output::talk(&format!("learner '{}' was there already", body.id));
    }
    output::one(&learner, learner.id.as_str(), flags)
}

async fn set(
    id: &str,
    class: Option<String>,
    aliases: &[String],
    flags: &cli::Client,
) -> anyhow::Result<()> {
    let aliases = Some(parsed(aliases)?).filter(|aliases| !aliases.is_empty());
    let body = PatchLearner { class, aliases };
    let learner: Learner = Client::find(flags)
        .await?
        .patch(&path(id, ""), &body)
        .await?;
    output::one(&learner, id, flags)?;
    output::talk(&format!(
        "learner '{id}' is changed; what its container is given changes at its next wake"
    ));
    Ok(())
}

fn parsed(aliases: &[String]) -> Result<Vec<AliasBody>, Failure> {
    let parse = |alias: &String| {
        let (channel, external_id) = alias.split_once('=').ok_or_else(|| {
            let message = format!("--alias '{alias}' must be CHANNEL=ID");
            Failure::new(Kind::Usage, message)
        })?;
        Ok(AliasBody {
            channel: channel.to_owned(),
            external_id: external_id.to_owned(),
        })
    };
    aliases.iter().map(parse).collect()
}

/// All learners.
pub(super) async fn all(server: &Client) -> anyhow::Result<Vec<Learner>> {
    let mut learners = Vec::new();
    let mut next = None;
    loop {
        let query = next.map_or_else(String::new, |id| format!("&after={id}"));
        let page: LearnerList = server
            .get(&format!("/admin/v1/learners?limit=500{query}"))
            .await?;
        learners.extend(page.learners);
        next = page.next;
        if next.is_none() {
            return Ok(learners);
        }
    }
}

async fn ls(flags: &cli::Client) -> anyhow::Result<()> {
    let learners = all(&Client::find(flags).await?).await?;
    let rows = Rows {
        items: &learners,
        headers: &HEADERS,
        plain: 6,
        cells: |learner: &Learner, now| {
            let snapshot = learner
                .newest_snapshot
                .as_ref()
                .and_then(|s| s.snapshot_id.as_ref());
            vec![
                learner.id.to_string(),
                learner.state.to_string(),
                learner.class.clone(),
                learner
                    .last_activity_time
                    .map(|time| age(time, now))
                    .unwrap_or_default(),
                learner.cost_today_nano_usd.to_string(),
                age(learner.created_time, now),
                learner.pod.clone().unwrap_or_default(),
                snapshot
                    .map(|id| id.as_str()[..8].to_owned())
                    .unwrap_or_default(),
                learner.state_detail.clone(),
            ]
        },
        name: |learner| learner.id.to_string(),
    };
    rows.print(flags)
}

async fn order(
    id: &str,
    verb: &str,
    wait: Wait,
    flags: &cli::Client,
    reached: fn(LearnerState) -> bool,
    word: &str,
) -> anyhow::Result<()> {
    let server = Client::find(flags).await?;
    server.order(Method::POST, &path(id, verb)).await?;
    if wait.wait {
        let look = async {
            loop {
                let learner: Learner = server.get(&path(id, "")).await?;
                if reached(learner.state) {
                    return Ok::<_, anyhow::Error>(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(wait.timeout), look)
            .await
            .map_err(|_| {
                let message = format!(
                    "learner '{id}' is not {word} after {} s; '{}' says why",
                    wait.timeout,
                    flags.command(&format!("learner show {id}"))
                );
                Failure::new(Kind::TimedOut, message)
            })??;
    }
    output::talk(&format!(
        "learner '{id}': {} {word}",
        if wait.wait { "is" } else { "will be" }
    ));
    Ok(())
}

async fn token(
    id: &str,
    ttl_seconds: Option<u32>,
    revoke: bool,
    flags: &cli::Client,
) -> anyhow::Result<()> {
    let server = Client::find(flags).await?;
    if revoke {
        server.order(Method::DELETE, &path(id, "/tokens")).await?;
        output::talk(&format!("learner '{id}': all tokens are revoked"));
        return Ok(());
    }
    let token: Token = server
        .post(&path(id, "/tokens"), &CreateToken { ttl_seconds })
        .await?;
    match flags.output {
        cli::Output::Table | cli::Output::Wide | cli::Output::Name => output::line(&token.token),
        cli::Output::Json | cli::Output::Yaml => output::one(&token, id, flags),
    }
}

async fn rm(id: &str, yes: bool, wait: Wait, flags: &cli::Client) -> anyhow::Result<()> {
    let server = Client::find(flags).await?;
    let _: Learner = server.get(&path(id, "")).await?;
    confirm(
        yes,
        &format!(
            "learner '{id}' and all of its data, its usage records too, will be erased for good"
        ),
    )?;
    server.order(Method::DELETE, &path(id, "")).await?;
    if wait.wait {
        let gone = async {
            loop {
                match server.get::<Learner>(&path(id, "")).await {
                    Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                    Err(error) if kind_of(&error) == Kind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(wait.timeout), gone)
            .await
            .map_err(|_| {
                Failure::new(
                    Kind::TimedOut,
                    format!("learner '{id}' is not gone after {} s", wait.timeout),
                )
            })??;
    }
    output::talk(&format!(
        "learner '{id}' {} erased",
        if wait.wait { "is" } else { "is being" }
    ));
    Ok(())
}
