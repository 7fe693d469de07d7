//! Tries what separate roles stand on, from where a command is typed: for `carrel doctor`. Nothing is changed by it, but for the
//! mark in a bucket in which nothing was ever kept.

use std::path::Path;
use std::time::Duration;

use carrel_protocol::fleet::IsolationReport;
use carrel_store::SharedStore;
use carrel_store::processes::{Process, Role};
use carrel_vault::Keyring;
use carrel_wire::Trust;
use reqwest::{Client, StatusCode};

use super::base::now;
use super::certificates::Certificates;
use super::store::{Opened, at};
use super::{check, data, keys, objects};
use crate::config::{self, Config, StoreAt};

/// For an address to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What a check found.
pub(crate) enum Found {
    Good(String),
    Notice(String),
    Bad {
        what: String,
        /// The next command.
        next: String,
    },
}

fn bad(what: impl std::fmt::Display, next: impl Into<String>) -> Found {
    Found::Bad {
        what: what.to_string(),
        next: next.into(),
    }
}

/// What was found, and a gateway that answers.
pub(crate) struct Survey {
    pub(crate) found: Vec<(&'static str, Found)>,
    pub(crate) gateway: Option<String>,
    /// Whose word is taken for who it is.
    pub(crate) trust: Trust,
}

/// Tries everything; `None` where all roles are one process on a file.
pub(crate) async fn survey(dir: &Path, config: &Config) -> Option<Survey> {
    let url = match at(&config.store) {
        Ok(StoreAt::Postgres(url)) => url,
        Ok(StoreAt::File(_)) | Err(_) => return None,
    };
    let mut found = Vec::new();
    let certificates = Certificates::read(dir, &config.tls).unwrap_or_else(|error| {
        let next = "carrel config show";
        found.push(("certificates", bad(format!("{error:#}"), next)));
        Certificates::default()
    });
    let client = Client::builder()
        .timeout(ANSWERS_WITHIN)
        .tls_backend_preconfigured((*certificates.trust.config()).clone())
        .no_proxy();
    let client = match client.build() {
        Ok(client) => client,
        Err(error) => {
            let why = format!("no HTTP client: {:#}", anyhow::Error::from(error));
            found.push(("certificates", bad(why, "carrel config show")));
            let trust = certificates.trust;
            return Some(Survey {
                found,
                gateway: None,
                trust,
            });
        }
    };
    let mut gateway = None;
    let store = match Opened::open(dir, &config.store).await {
        Ok(opened) => Some(opened.shared()),
        Err(error) => {
            found.push(("database", unopened(&error, url)));
            None
        }
    };
    if let Some(store) = &store {
        let told = "answers; its schema is as new as this program";
        found.push(("database", Found::Good(told.to_owned())));
        let gateways;
        (gateways, gateway) = ask_gateways(&client, store, dir, config).await;
        found.extend(gateways.into_iter().map(|one| ("gateway", one)));
        found.push(("fleet", fleet(store).await));
    }
    found.push(("router", router(&client, dir, config).await));
    found.push(("vault", vault(&client, config).await));
    found.push(("snapshots", bucket(store.as_ref(), dir, config).await));
    found.push(("keys", key_files(store.as_ref(), dir, config).await));
    let trust = certificates.trust;
    Some(Survey {
        found,
        gateway,
        trust,
    })
}

/// Tries database and bucket before anything is installed on them: a database without a schema is as it should be.
pub(crate) async fn survey_stores(dir: &Path, config: &Config) -> Vec<(&'static str, Found)> {
    let url = match at(&config.store) {
        Ok(StoreAt::Postgres(url)) => url,
        Ok(StoreAt::File(_)) => {
            let what = "'store.url' is a file: roles in a cluster share a PostgreSQL";
            return vec![("database", bad(what, "carrel config show"))];
        }
        Err(error) => return vec![("database", bad(error, "carrel config show"))],
    };
    let (database, store) = match Opened::open(dir, &config.store).await {
        Ok(opened) => {
            let told = "answers; its schema is as new as this program";
            (Found::Good(told.to_owned()), Some(opened.shared()))
        }
        Err(error) => match error.downcast_ref() {
            Some(carrel_store_postgres::Error::Store(carrel_store::Error::Schema {
                found,
                wanted,
            })) if found < wanted => {
                let told = format!(
                    "answers; the chart's migrations bring its schema from {found} to {wanted}"
                );
                (Found::Good(told), None)
            }
            _ => (unopened(&error, url), None),
        },
    };
    let snapshots = match (&store, &database) {
        _ if config.objects == config::Objects::default() => {
            Found::Notice("no bucket is named: CARREL_OBJECTS_URL does".to_owned())
        }
        // A database without a schema knows of no snapshots.
        (None, Found::Good(_)) => match untried(dir, config) {
            Some(untried) => untried,
            None => open_bucket(dir, config, async { Ok(false) }).await,
        },
        (store, _) => bucket(store.as_ref(), dir, config).await,
    };
    vec![("database", database), ("snapshots", snapshots)]
}

fn unopened(error: &anyhow::Error, url: &str) -> Found {
    let what = format!("{error:#}");
    match error.downcast_ref() {
        Some(carrel_store_postgres::Error::Store(carrel_store::Error::Schema {
            found,
            wanted,
        })) if found < wanted => bad(what, "carrel migrate"),
        _ => bad(what, format!("psql '{url}' -c 'SELECT 1'")),
    }
}

async fn ask_gateways(
    client: &Client,
    store: &SharedStore,
    dir: &Path,
    config: &Config,
) -> (Vec<Found>, Option<String>) {
    let there = match store.processes(Role::Gateway, now()).await {
        Ok(there) if there.is_empty() => {
            return (
                vec![bad("none says that it is there", "carrel gateway")],
                None,
            );
        }
        Ok(there) => there,
        Err(error) => return (vec![unread(&error)], None),
    };
    let ours = dir.join(&config.keys.gateway_key_file);
    let ours = data::read(&ours).ok().flatten();
    let ours = ours.and_then(|pem| check::signer(dir, &pem).ok());
    let (mut found, mut ready) = (Vec::new(), None);
    for Process {
        address, report, ..
    } in there
    {
        let other_key = ours
            .as_ref()
            .is_some_and(|key| carrel_gateway::report(key) != report);
        found.push(
            match get(client, &format!("{address}/readyz"), None).await {
                Ok((StatusCode::OK, _)) if other_key => bad(
                    format!(
                        "the one at {address} has another key than {}",
                        config.keys.gateway_key_file
                    ),
                    format!(
                        "ls -l {}  # copy its gateway.key and admin.token here",
                        dir.display()
                    ),
                ),
                Ok((StatusCode::OK, _)) => {
                    let told = format!("the one at {address} answers and is ready");
                    ready.get_or_insert(address);
                    Found::Good(told)
                }
                Ok((_, said)) => bad(
                    format!("the one at {address} is not ready: {}", said.trim()),
                    format!("curl {address}/readyz"),
                ),
                Err(why) => bad(
                    format!("the one at {address} does not answer here: {why}"),
                    format!("curl {address}/readyz"),
                ),
            },
        );
    }
    (found, ready)
}

fn unread(error: &carrel_store::Error) -> Found {
    match error {
        carrel_store::Error::NotAllowed { .. } => Found::Notice(
            "is not asked for: this role of the database may not see who is there, carrel_gateway may".to_owned(),
        ),
        _ => bad(error, "carrel store check"),
    }
}

async fn fleet(store: &SharedStore) -> Found {
    let there = match store.processes(Role::Fleet, now()).await {
        Ok(there) => there,
        Err(error) => return unread(&error),
    };
    let Some(fleet) = there.first() else {
        return bad(
            "none says that it is there: nobody makes pods",
            "carrel fleet",
        );
    };
    let report = serde_json::from_str::<IsolationReport>(&fleet.report);
    match report {
        Ok(report) if report.isolation == "process" => Found::Notice(
            "is there; nothing isolates learners from each other or from its machine".to_owned(),
        ),
        Ok(report) if !report.limits_missing.is_empty() => Found::Notice(format!(
            "is there; {}, but not limited: {}",
            report.isolation,
            report.limits_missing.join(", ")
        )),
        Ok(report) => Found::Good(format!(
            "is there; {}, all limits are set",
            report.isolation
        )),
        Err(_) => Found::Good("is there".to_owned()),
    }
}

async fn router(client: &Client, dir: &Path, config: &Config) -> Found {
    let url = config.gateway.router_url.trim_end_matches('/');
    let token = data::read(&dir.join(&config.keys.admin_token_file));
    let token = token.ok().flatten();
    match get(client, &format!("{url}/v1/models"), token.as_deref()).await {
        Ok((status, said)) if status.is_success() => {
            let models: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
            let models = models["data"].as_array().map_or(0, Vec::len);
            Found::Good(format!(
                "{url} answers; it knows {models} models and routes"
            ))
        }
        Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => {
            Found::Good(format!("{url} answers; admin.token here is not its own"))
        }
        Ok((status, _)) => bad(format!("{url} answers with {status}"), "carrel router"),
        Err(why) => bad(
            format!("{url} ('gateway.routerUrl') does not answer: {why}"),
            "carrel router",
        ),
    }
}

async fn vault(client: &Client, config: &Config) -> Found {
    let url = config.gateway.vault_url.trim_end_matches('/');
    // Nobody may ask so, and only a vault says that.
    match get(client, &format!("{url}/v1/learners/doctor/head"), None).await {
        Ok((StatusCode::UNAUTHORIZED, _)) => Found::Good(format!("{url} answers")),
        Ok((status, _)) => bad(
            format!("{url} ('gateway.vaultUrl') answers with {status}, as no vault does"),
            "carrel config show",
        ),
        Err(why) => bad(
            format!("{url} ('gateway.vaultUrl') does not answer: {why}"),
            "carrel vault",
        ),
    }
}

/// Reached with the keys that are here: gateways, routers and fleets need none.
async fn bucket(store: Option<&SharedStore>, dir: &Path, config: &Config) -> Found {
    if let Some(untried) = untried(dir, config) {
        return untried;
    }
    let Some(store) = store else {
        let place = &config.objects.url;
        return Found::Notice(format!("{place} is not tried without the database"));
    };
    open_bucket(dir, config, objects::has_snapshots(&**store, now())).await
}

/// Why a bucket cannot be tried from here.
fn untried(dir: &Path, config: &Config) -> Option<Found> {
    let place = &config.objects.url;
    if let Err(error) = objects::refuse_own_folder(&config.objects) {
        return Some(bad(error, "carrel config show"));
    }
    let keys = &config.objects.credentials_file;
    let is_elsewhere = !keys.is_empty() && !keys.starts_with("env:") && !dir.join(keys).exists();
    is_elsewhere.then(|| {
        Found::Notice(format!(
            "{place} is not tried: its keys ({keys}) are not here, but where vaults run"
        ))
    })
}

async fn open_bucket(
    dir: &Path,
    config: &Config,
    has_snapshots: impl Future<Output = anyhow::Result<bool>>,
) -> Found {
    let place = &config.objects.url;
    let opened = async { objects::open(dir, &config.objects, has_snapshots.await?).await };
    match opened.await {
        Ok(objects) if objects.is_conditional() => {
            Found::Good(format!("{place} answers, and writes over nothing"))
        }
        Ok(_) => Found::Notice(format!(
            "{place} answers; its server knows no conditional writes: each object is looked for before it is written"
        )),
        Err(error) => bad(format!("{place}: {error:#}"), "carrel config show"),
    }
}

/// What is here serves; which role needs which stands in docs/operations.md.
async fn key_files(store: Option<&SharedStore>, dir: &Path, config: &Config) -> Found {
    let files = &config.keys;
    let mut there = Vec::new();
    for (name, made_by) in [
        (&files.verifying_keys_file, "carrel fleet"),
        (&files.gateway_verifying_keys_file, "carrel gateway"),
    ] {
        let file = dir.join(name);
        if file.exists() {
            if let Err(error) = keys::public(&file, "keys", made_by) {
                return bad(format!("{error:#}"), made_by);
            }
            there.push(name.as_str());
        }
    }
    for name in [&files.signing_key_file, &files.gateway_key_file] {
        let file = dir.join(name);
        match data::read(&file) {
            Ok(Some(pem)) => match check::signer(&file, &pem) {
                Ok(_) => there.push(name),
                Err(error) => {
                    return bad(format!("{error:#}"), format!("ls -l {}", file.display()));
                }
            },
            Ok(None) => {}
            Err(error) => return bad(format!("{error:#}"), format!("ls -l {}", file.display())),
        }
    }
    let kek = dir.join(&files.kek_file);
    if kek.exists() {
        let keyring = match Keyring::read(&kek) {
            Ok(keyring) => keyring,
            Err(error) => return bad(error, format!("ls -l {}", kek.display())),
        };
        let tried = match store {
            Some(store) => carrel_vault::try_keys(store, &keyring, now()).await,
            None => Ok(()),
        };
        match tried {
            Ok(()) => there.push(&files.kek_file),
            Err(carrel_vault::Error::Store(carrel_store::Error::NotAllowed { .. })) => {
                return Found::Notice(format!(
                    "{} can be read; whether it opens learners' keys only the vault's role of the database may try",
                    kek.display()
                ));
            }
            Err(error) => {
                return bad(
                    format!("{}: {error}", kek.display()),
                    format!("ls -l {}", kek.display()),
                );
            }
        }
    }
    if there.is_empty() {
        let told = format!("none of the roles' keys is in {}", dir.display());
        return Found::Notice(told);
    }
    Found::Good(format!("{} serve", there.join(", ")))
}

/// What an address says; else why it says nothing.
async fn get(
    client: &Client,
    url: &str,
    token: Option<&str>,
) -> Result<(StatusCode, String), String> {
    let why = |error: reqwest::Error| {
        let error = anyhow::Error::from(error.without_url());
        error.root_cause().to_string()
    };
    let request = client.get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token.trim()),
        None => request,
    };
    let answer = request.send().await.map_err(why)?;
    let status = answer.status();
    Ok((status, answer.text().await.map_err(why)?))
}
