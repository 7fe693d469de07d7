//! A server on this machine, or one that is named: what its folder, its configuration and itself say.

use std::time::Duration;

use carrel_core::learner::LearnerState;
use carrel_core::lifecycle::names;
use carrel_protocol::gateway::Learner;
use reqwest::Method;

use super::super::learner::all;
use super::{Report, load};
use crate::cli;
use crate::client::Client;
use crate::config;
use crate::paths;
use crate::place::nowhere;
use crate::run_file::RunFile;
use crate::up::{Found, survey};

pub(super) async fn look(flags: &cli::Client, report: &mut Report<'_>) -> anyhow::Result<()> {
    // A server elsewhere has its folder elsewhere.
    let (mut at, mut trust) = (Some(flags.clone()), None);
    let mut absent = None;
    if flags.place.server.is_none() {
        let data_dir = paths::data_dir(flags.place.data_dir.as_deref())?;
        report.say("data folder", data_folder(&data_dir))?;
        let loaded = load(&data_dir);
        report.say("configuration", configuration(&data_dir, &loaded))?;
        if let Some(run) = &RunFile::read(&data_dir)? {
            report.say("isolation", isolation(run))?;
            report.say("providers", providers(run))?;
        } else if let Ok(loaded) = &loaded
            && let Some(surveyed) = survey(&data_dir, &loaded.config).await
        {
            for (name, found) in surveyed.found {
                report.say(name, found)?;
            }
            trust = Some(surveyed.trust);
            let token = data_dir.join(&loaded.config.keys.admin_token_file);
            at = surveyed.gateway.filter(|_| token.exists()).map(|gateway| {
                let mut flags = flags.clone();
                flags.place.server = Some(gateway);
                flags.place.token_file = Some(token);
                flags
            });
        } else {
            absent = Some(nowhere(&data_dir, flags));
        }
    }
    let server = match (absent, &at) {
        (Some(absent), _) => Some(Err(absent.into())),
        // No gateway of theirs answers, which is said.
        (None, None) => None,
        (None, Some(flags)) => Some(Client::find(flags).await),
    };
    let server = server.map(|found| match (found, &trust) {
        (Ok(server), Some(trust)) => server.trusting(trust),
        (found, _) => found,
    });
    match server {
        None => {}
        Some(Err(error)) => {
            let next = "carrel up".to_owned();
            report.say(
                "server",
                Found::Bad {
                    what: error.to_string(),
                    next,
                },
            )?;
        }
        Some(Ok(server)) => {
            report.say("server", server_answers(&server, "carrel up").await)?;
            report.say("learners", learners(&server).await)?;
            if let Ok(router) = server.of_router().await {
                report.say("router", router_answers(&router).await)?;
            }
        }
    }
    Ok(())
}

fn data_folder(dir: &std::path::Path) -> Found {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < 1 << 30 {
                let what = format!("{} has only {} MiB left", dir.display(), free >> 20);
                Found::Bad {
                    what,
                    next: format!("df -h {}", dir.display()),
                }
            } else {
                Found::Good(format!("{} ({} GiB free)", dir.display(), free >> 30))
            }
        }
        Err(error) => Found::Bad {
            what: format!("{} cannot be looked at: {error}", dir.display()),
            next: "carrel up".to_owned(),
        },
    }
}

/// Whether the next start could read the file in the data folder. Keys and their variables are the server's, and not looked at.
fn configuration(dir: &std::path::Path, loaded: &Result<config::Loaded, config::Error>) -> Found {
    let file = dir.join("carrel.yaml");
    match loaded {
        Ok(_) => Found::Good(format!("{} can be read", file.display())),
        Err(error) => Found::Bad {
            what: format!("the next start would refuse it: {error}"),
            next: format!("edit {}", file.display()),
        },
    }
}

fn isolation(run: &RunFile) -> Found {
    if run.isolation == "process" {
        let what = "nothing isolates learners from each other or from this machine";
        return Found::Notice(format!(
            "{what}; as root, or where user namespaces are allowed, containers do"
        ));
    }
    if run.limits_missing.is_empty() {
        return Found::Good(format!("{}, all limits are set", run.isolation));
    }
    Found::Notice(format!(
        "{}, but not limited here: {}",
        run.isolation,
        run.limits_missing.join(", ")
    ))
}

fn providers(run: &RunFile) -> Found {
    if run.providers.len() > 1 {
        return Found::Good(run.providers.join(", "));
    }
    Found::Notice(
        "only the stand-in demo/tutor; set ANTHROPIC_API_KEY and start again for a real model"
            .to_owned(),
    )
}

/// Whether it is ready; else the next command.
pub(super) async fn server_answers(server: &Client, next: &str) -> Found {
    match server
        .answer(
            server
                .request(Method::GET, "/readyz")
                .timeout(Duration::from_secs(5)),
        )
        .await
    {
        Ok(_) => Found::Good("answers and is ready".to_owned()),
        Err(error) => Found::Bad {
            what: error.to_string(),
            next: next.to_owned(),
        },
    }
}

async fn learners(server: &Client) -> Found {
    match all(server).await {
        Ok(learners) => {
            let failed: Vec<_> = learners
                .iter()
                .filter(|learner| cannot_start(learner))
                .map(|learner| learner.id.to_string())
                .collect();
            match failed.first() {
                None => Found::Good(format!("{} looked at, none has failed", learners.len())),
                Some(first) => Found::Bad {
                    what: format!("cannot be started: {}", failed.join(", ")),
                    next: format!("carrel learner show {first}"),
                },
            }
        }
        Err(error) => Found::Bad {
            what: error.to_string(),
            next: "carrel learner ls".to_owned(),
        },
    }
}

/// Whether its pods cannot be made or do not live; also when nobody tries any more.
fn cannot_start(learner: &Learner) -> bool {
    let mut conditions = learner.conditions.iter();
    learner.state == LearnerState::Failed
        || conditions.any(|condition| condition.reason == names::GIVEN_UP)
}

pub(super) async fn router_answers(router: &Client) -> Found {
    match router.get::<serde_json::Value>("/v1/models").await {
        Ok(answer) => {
            let models = answer["data"].as_array().into_iter().flatten();
            let names: Vec<_> = models.filter_map(|model| model["id"].as_str()).collect();
            Found::Good(format!("answers; it knows {}", names.join(", ")))
        }
        Err(error) => Found::Bad {
            what: error.to_string(),
            next: "carrel model ls".to_owned(),
        },
    }
}
