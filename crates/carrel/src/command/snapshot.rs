//! `carrel snapshot`: what is kept of a learner's workspace.

use carrel_core::{Generation, SnapshotId};
use carrel_gateway::{ResticEnvironment, SnapshotCheck};
use carrel_protocol::gateway::{Restore, SnapshotList, SnapshotSummary};
use reqwest::Method;

use super::confirm;
use super::learner::{path, segment};
use crate::cli::{self, SnapshotCommand};
use crate::client::Client;
use crate::exit::{Failure, Kind};
use crate::output::{self, Rows, age};

pub(super) async fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Ls { learner, client } => ls(&learner, &client).await,
        SnapshotCommand::Create { learner, client } => {
            let server = Client::find(&client).await?;
            server
                .order(Method::POST, &path(&learner, "/snapshots"))
                .await?;
            output::talk(&format!(
                "learner '{learner}': a snapshot of now is taken as it goes to sleep"
            ));
            Ok(())
        }
        SnapshotCommand::Restore {
            learner,
            snapshot,
            yes,
            client,
        } => {
            let server = Client::find(&client).await?;
            let Meant { snapshot_id, .. } = meant(&server, &learner, &snapshot).await?;
            let what = format!("learner '{learner}' will go on from snapshot {snapshot_id}");
            confirm(yes, &what)?;
            let request = server
                .request(Method::POST, &path(&learner, "/restore"))
                .json(&Restore { snapshot_id });
            server.answer(request).await?;
            output::talk(&what);
            Ok(())
        }
        SnapshotCommand::Verify {
            learner,
            snapshot,
            client,
        } => verify(&learner, snapshot.as_deref(), &client).await,
        SnapshotCommand::Rm {
            learner,
            snapshot,
            yes,
            client,
        } => {
            let server = Client::find(&client).await?;
            let meant = meant(&server, &learner, &snapshot).await?;
            let snapshot = format!("snapshot {}{}", meant.snapshot_id, meant.shared());
            confirm(
                yes,
                &format!("{snapshot} of learner '{learner}' will be removed"),
            )?;
            let place = path(&learner, &format!("/snapshots/{}", meant.snapshot_id));
            server.order(Method::DELETE, &place).await?;
            output::talk(&format!("{snapshot} is removed"));
            Ok(())
        }
        SnapshotCommand::Restic { learner, client } => restic(&learner, &client).await,
    }
}

/// A snapshot that was named by its beginning.
struct Meant {
    snapshot_id: SnapshotId,
    /// Those whose state it is, newest first: more than one after a restore.
    generations: Vec<Generation>,
}

impl Meant {
    /// Says it where removing the snapshot removes more than one generation.
    fn shared(&self) -> String {
        let numbers: Vec<_> = self.generations.iter().map(ToString::to_string).collect();
        match numbers.len() {
            0 | 1 => String::new(),
            _ => format!(", which generations {} share,", numbers.join(" and ")),
        }
    }
}

/// The one snapshot whose name begins so.
async fn meant(server: &Client, learner: &str, beginning: &str) -> anyhow::Result<Meant> {
    let usage = |message: String| Failure::new(Kind::Usage, message);
    if beginning.is_empty() || !beginning.bytes().all(|b| b.is_ascii_hexdigit()) {
        let message = format!("'{beginning}' is no snapshot: 'carrel snapshot ls' lists them");
        return Err(usage(message).into());
    }
    let list: SnapshotList = server.get(&path(learner, "/snapshots")).await?;
    let mut found: Option<Meant> = None;
    for row in list.snapshots {
        let (Some(id), Some(generation)) = (row.snapshot_id, row.generation) else {
            continue;
        };
        if !id.as_str().starts_with(&beginning.to_ascii_lowercase()) {
            continue;
        }
        match &mut found {
            Some(known) if known.snapshot_id == id => known.generations.push(generation),
            Some(known) => {
                let (one, other) = (&known.snapshot_id, id);
                let message = format!("'{beginning}' may be {one} or {other}: give more of it");
                return Err(usage(message).into());
            }
            None => {
                found = Some(Meant {
                    snapshot_id: id,
                    generations: vec![generation],
                });
            }
        }
    }
    let none = || {
        let message = format!("learner '{learner}' has no snapshot {beginning}");
        Failure::new(Kind::NotFound, message)
    };
    Ok(found.ok_or_else(none)?)
}

async fn ls(learner: &str, flags: &cli::Client) -> anyhow::Result<()> {
    let list: SnapshotList = Client::find(flags)
        .await?
        .get(&path(learner, "/snapshots"))
        .await?;
    let rows = Rows {
        items: &list.snapshots,
        headers: &["GENERATION", "SNAPSHOT", "AGE", "DAMAGED", "TURN"],
        plain: 4,
        cells: |snapshot: &SnapshotSummary, now| {
            vec![
                snapshot
                    .generation
                    .map(|g| g.to_string())
                    .unwrap_or_default(),
                snapshot
                    .snapshot_id
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                age(snapshot.time, now),
                snapshot.damaged.to_string(),
                snapshot.turn_id.map(|t| t.to_string()).unwrap_or_default(),
            ]
        },
        name: |snapshot| {
            snapshot
                .snapshot_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        },
    };
    rows.print(flags)
}

async fn verify(learner: &str, snapshot: Option<&str>, flags: &cli::Client) -> anyhow::Result<()> {
    let server = Client::find(flags).await?;
    let snapshot = if let Some(snapshot) = snapshot {
        let meant = meant(&server, learner, snapshot).await?;
        meant.snapshot_id.to_string()
    } else {
        let list: SnapshotList = server.get(&path(learner, "/snapshots")).await?;
        let newest = list.snapshots.into_iter().find_map(|s| s.snapshot_id);
        let none = || {
            Failure::new(
                Kind::NotFound,
                format!("learner '{learner}' has no snapshot"),
            )
        };
        newest.ok_or_else(none)?.to_string()
    };
    let place = path(
        learner,
        &format!("/snapshots/{}/verify", segment(&snapshot)),
    );
    let verified: SnapshotCheck = server.post(&place, &serde_json::json!({})).await?;
    if verified.intact {
        output::talk(&format!("snapshot {snapshot} is intact"));
        Ok(())
    } else {
        let message = format!(
            "snapshot {snapshot} is damaged: {}",
            verified.damage.join("; ")
        );
        Err(Failure::new(Kind::Failed, message).into())
    }
}

async fn restic(learner: &str, flags: &cli::Client) -> anyhow::Result<()> {
    let access: ResticEnvironment = Client::find(flags)
        .await?
        .post(&path(learner, "/restic"), &serde_json::json!({}))
        .await?;
    output::talk(
        "only read with it: what 'restic backup' adds is no state of the learner, and 'forget' or 'prune' destroy states; \
         remove the password's file when you are done",
    );
    if access.repository.starts_with("s3:") {
        output::talk(
            "restic takes its keys for the bucket from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from \
             AWS_SHARED_CREDENTIALS_FILE; get, list, put and delete are needed ('--no-lock' does with get and list), and \
             '--cacert FILE' where 'objects.caFile' is set",
        );
    }
    output::line(&format!("RESTIC_REPOSITORY={}", access.repository))?;
    output::line(&format!("RESTIC_PASSWORD_FILE={}", access.password_file))?;
    if access.options.is_empty() {
        return Ok(());
    }
    let options = access.options.join(" -o ");
    output::line(&format!("# restic -o {options} --no-lock snapshots"))
}
