//! A pod's life: blank, assigned, awake, asleep. Read it from top to bottom.

use std::sync::Arc;
use std::time::Duration;

use carrel_protocol::sidecar::Phase;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::Attempt;
use crate::awake::{Awake, describe};
use crate::exit::Exit;
use crate::link::Link;
use crate::pod::Pod;
use crate::room;
use crate::turn::{self, Uncommitted, Verdict};
use crate::wake::{self, wake};

/// Lives until the pod has slept, failed or been replaced. `link` has the shim once it has connected.
pub(crate) async fn live(
    pod: &Arc<Pod>,
    mut turns: mpsc::Receiver<Arc<Attempt>>,
    link: watch::Receiver<Option<Link>>,
) -> Exit {
    let identity = tokio::select! {
        identity = pod.assigned() => identity,
        () = pod.sleep.cancelled() => return Exit::Clean,
        () = lost(link.clone()) => return Exit::ShimLost,
    };
    let assignment = Arc::clone(&identity.assignment);
    let span = tracing::info_span!(
        "incarnation",
        learner.id = %assignment.learner,
        epoch = %assignment.epoch,
    );
    async {
        let woken = tokio::select! {
            woken = wake(pod, &assignment, connected(link.clone())) => woken,
            // Nothing was done yet that is worth keeping.
            () = pod.sleep.cancelled() => return Exit::Clean,
            () = lost(link) => return Exit::ShimLost,
        };
        let mut awake = match woken {
            Ok(awake) => awake,
            Err(wake::Failure(exit, why)) => {
                tracing::warn!(%exit, why, "could not wake");
                pod.enter(Phase::Ending, why);
                return exit;
            }
        };
        pod.open();
        match stay_awake(&mut awake, &mut turns).await {
            Ok(()) => fall_asleep(&mut awake).await,
            Err(exit) => exit,
        }
    }
    .instrument(span)
    .await
}

/// Runs turns until it is time to sleep.
async fn stay_awake(
    awake: &mut Awake,
    turns: &mut mpsc::Receiver<Arc<Attempt>>,
) -> Result<(), Exit> {
    let longest = Duration::from_secs(awake.assignment.class.idle.max_awake_seconds.into());
    let too_long = Instant::now() + longest;
    loop {
        let pod = Arc::clone(&awake.pod);
        let attempt = tokio::select! {
            biased;
            Some(attempt) = turns.recv() => attempt,
            end = awake.agent_ended() => {
                let why = describe(end);
                tracing::warn!(why, "the agent ended while nobody asked it");
                pod.fail(why);
                return Err(Exit::AgentDied);
            }
            () = awake.link.lost() => {
                pod.fail("the agent's container has ended");
                return Err(Exit::ShimLost);
            }
            excess = room::outgrown(awake, room::AT_REST) => {
                let why = excess.to_string();
                tracing::warn!(why, "the agent uses more room than it has");
                pod.fail(why);
                let _ = awake.link.kill_all().await;
                return Err(Exit::SnapshotRefused);
            }
            () = pod.sleep.cancelled() => {
                // One more may have been taken just before.
                match turns.try_recv() {
                    Ok(attempt) => attempt,
                    Err(_) => return Ok(()),
                }
            }
            () = quiet(&pod, awake.idle_window(), too_long) => {
                pod.drain();
                continue;
            }
        };
        run_turn(awake, &attempt).await?;
    }
}

async fn run_turn(awake: &mut Awake, attempt: &Attempt) -> Result<(), Exit> {
    let span = tracing::info_span!("turn", turn.id = %attempt.turn);
    let pod = Arc::clone(&awake.pod);
    match turn::run(awake, attempt).instrument(span).await {
        Verdict::Committed(frame) => {
            attempt.end(frame);
            pod.turn_ended();
            Ok(())
        }
        Verdict::Over(frame, exit) => {
            pod.fail("its last turn was not committed");
            attempt.end(frame);
            Err(exit)
        }
    }
}

/// While no turn runs: returns when no request has run for the window, or when it is late, whoever is connected. An open
/// connection counts as activity, but a token that ends is not renewed for it.
async fn quiet(pod: &Pod, window: Duration, too_long: Instant) {
    let mut hello = pod.watch();
    loop {
        let is_quiet = hello.borrow_and_update().quiet_since.is_some();
        let idle = is_quiet.then(|| Instant::now() + window);
        let until = idle.map_or(too_long, |idle| idle.min(too_long));
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            _ = hello.changed() => {}
        }
    }
}

/// The final snapshot, if anything has changed since the last.
async fn fall_asleep(awake: &mut Awake) -> Exit {
    let pod = Arc::clone(&awake.pod);
    pod.close();
    pod.enter(Phase::Snapshotting, "");
    match save(awake).await {
        Ok(()) => Exit::Clean,
        Err(error) => {
            let (exit, why) = match error {
                Uncommitted::Refused { reason, .. } => (Exit::SnapshotRefused, reason),
                Uncommitted::Over(reason) => (Exit::Fenced, reason),
                Uncommitted::Away(reason) => (Exit::VaultAway, reason),
                Uncommitted::Lost(reason) => (Exit::ShimLost, reason),
            };
            tracing::warn!(%exit, why, "the final snapshot was not committed");
            pod.enter(Phase::Ending, why);
            exit
        }
    }
}

async fn save(awake: &mut Awake) -> Result<(), Uncommitted> {
    turn::freeze(awake).await?;
    let tree = turn::take_fingerprint(awake).await;
    if tree.is_same(&awake.committed_tree) {
        return Ok(());
    }
    turn::commit(awake, None).await.map(drop)
}

/// The shim, once it has connected.
async fn connected(mut link: watch::Receiver<Option<Link>>) -> Link {
    let found = link
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|link| link.clone());
    match found {
        Some(link) => link,
        None => std::future::pending().await,
    }
}

/// Returns when a shim had connected and is gone.
async fn lost(link: watch::Receiver<Option<Link>>) {
    connected(link).await.lost().await;
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::pod::tests::blank;

    const WINDOW: Duration = Duration::from_mins(5);
    const LONGEST: Duration = Duration::from_hours(20);

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_open_defers_sleep_until_it_is_late_and_no_longer() {
        let (pod, began) = (blank(), Instant::now());
        pod.open();
        pod.note(|hello| hello.quiet_since = None);
        let mut late = std::pin::pin!(quiet(&pod, WINDOW, began + LONGEST));
        let almost = LONGEST.saturating_sub(Duration::from_mins(1));
        assert!(timeout(almost, &mut late).await.is_err(), "in use");
        timeout(WINDOW, late).await.expect("it is late");
        assert_eq!(began.elapsed(), LONGEST);
        // Whoever woke for a turn that ended late does not stay for the connection.
        quiet(&pod, WINDOW, began + LONGEST).await;
        assert_eq!(began.elapsed(), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_begins_when_the_last_connection_has_closed() {
        let (pod, began) = (blank(), Instant::now());
        pod.open();
        pod.note(|hello| hello.quiet_since = None);
        let closing = async {
            tokio::time::sleep(2 * WINDOW).await;
            pod.note(|hello| hello.quiet_since = Some(crate::clock::now()));
        };
        tokio::join!(quiet(&pod, WINDOW, began + LONGEST), closing);
        assert_eq!(began.elapsed(), 3 * WINDOW);
    }
}
