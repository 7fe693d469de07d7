//! `carrel snapshot`: what is kept of a learner's workspace.

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
            let server = Client::find(&client)?;
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
            let what = format!("learner '{learner}' will go on from snapshot {snapshot}");
            confirm(yes, &what)?;
            let server = Client::find(&client)?;
            let snapshot_id = snapshot
                .parse()
                .map_err(|e: carrel_core::id::Error| Failure::new(Kind::Usage, e.to_string()))?;
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
            confirm(
                yes,
                &format!("snapshot {snapshot} of learner '{learner}' will be removed"),
            )?;
            let server = Client::find(&client)?;
            let place = path(&learner, &format!("/snapshots/{}", segment(&snapshot)));
            server.order(Method::DELETE, &place).await?;
            output::talk(&format!("snapshot {snapshot} is removed"));
            Ok(())
        }
        SnapshotCommand::Restic { learner, client } => restic(&learner, &client).await,
    }
}

async fn ls(learner: &str, flags: &cli::Client) -> anyhow::Result<()> {
    let list: SnapshotList = Client::find(flags)?
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
    let server = Client::find(flags)?;
    let snapshot = if let Some(snapshot) = snapshot {
        snapshot.to_owned()
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
    let access: ResticEnvironment = Client::find(flags)?
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
