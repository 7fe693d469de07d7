//! The same learner with its snapshots in a bucket, on a real server of S3's protocol on loopback: how long a small change
//! takes until it is kept, and how long until the workspace is there again.

use anyhow::Context as _;
use carrel_testkit::s3::{BUCKET, S3Server};
use carrel_tests::figures::{Figures, shown};
use carrel_tests::{Setup, Up, agent};
use serde_json::json;
use tempfile::TempDir;

use crate::talk::{LEARNER, fill, turn};
use crate::{RUNS, median};

/// Turns of one run, awake without a pause.
const TURNS: usize = 50;
/// Wakes of one run.
const WAKES: usize = 30;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let (mut done, mut saved, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let folder = TempDir::with_prefix("carrel-bench-s3-")?;
        let server = S3Server::start(folder.path()).map_err(anyhow::Error::msg)?;
        let up = up(&server, &folder).await?;
        fill(&up).await?;
        let (mut ends, mut saves) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let times = turn(&up.api).await?;
            ends.push(times.until_done);
            saves.push(times.snapshot);
        }
        let mut restores = Vec::new();
        for _ in 0..WAKES {
            up.api.sleep(LEARNER).await?;
            let times = turn(&up.api).await?;
            restores.push(restore(&up, &times.turn).await?);
        }
        done.push(median(&mut ends)?);
        saved.push(median(&mut saves)?);
        restored.push(median(&mut restores)?);
    }
    figures.at_most(
        "snapshot to S3, one small change in a 10 MB workspace: agent quiet → head committed and told, p50",
        "ms",
        &[(median(&mut saved)?, 120.0)],
    );
    figures.noted(
        "end of text → `done` in the same turns, p50",
        &format!("{} ms", shown(median(&mut done)?)),
    );
    figures.at_most(
        "restore of the 10 MB workspace from S3, key and head included, p50",
        "ms",
        &[(median(&mut restored)?, 300.0)],
    );
    Ok(())
}

/// A server whose snapshots lie in the bucket.
async fn up(server: &S3Server, folder: &TempDir) -> anyhow::Result<Up> {
    let keys = folder.path().join("keys");
    std::fs::write(&keys, S3Server::credentials())?;
    let settings = json!({"objects": {
        "url": format!("s3://{BUCKET}/school"),
        "endpoint": server.endpoint(),
        "pathStyle": true,
        "credentialsFile": keys,
    }});
    let setup = Setup {
        documents: vec![agent::learner(LEARNER, "default")],
        settings: Some(settings),
        ..Setup::default()
    };
    let up = Up::start("bucket", setup).await?;
    up.context("figures are of containers, which this machine does not give")
}

/// What a turn's document says of the restore before it, in milliseconds.
async fn restore(up: &Up, turn: &str) -> anyhow::Result<f64> {
    let turn = up.api.turn(LEARNER, turn).await?;
    let took = turn["timing_ms"]["restore"].as_f64();
    took.context("a turn is timed")
}
