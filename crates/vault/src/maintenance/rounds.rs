//! When sleeping learners are looked after: each when its rows change, and all in turn when changes were missed. And, apart from
//! that, when what erased learners left is removed for the last time.
//!
//! No timer runs for learners while nobody is due.

use std::collections::BTreeSet;
use std::mem;
use std::pin::pin;
use std::time::Duration;

use carrel_core::LearnerId;
use carrel_store::processes::Task;
use futures::StreamExt as _;
use jiff::SignedDuration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{Error, Vault};

/// Objects of an erased learner are removed again after this: longer than any upload takes.
const ERASED_GRACE: SignedDuration = SignedDuration::from_hours(25);
const ERASED_EVERY: Duration = Duration::from_hours(1);
/// How often it is tried to become the vault that looks after repositories.
const LEAD_AGAIN: Duration = Duration::from_secs(5);
/// Learners that are read at once when all are looked at.
const PAGE: u32 = 100;
/// So many sleeping learners are looked after at once: a large repository holds up nobody, and turns keep their share of the
/// vault's jobs.
const AT_ONCE: usize = 2;

/// How hasty looking after learners is.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Changes are gathered for so long before sleeping learners among them are looked at.
    gather: Duration,
    /// All are looked at no earlier than this after the last time: it costs every learner a listing.
    all: Duration,
}

const PACE: Pace = Pace {
    gather: Duration::from_secs(5),
    all: Duration::from_hours(1),
};

/// Who is to be looked at.
#[derive(Debug)]
struct Due {
    pace: Pace,
    changed: BTreeSet<LearnerId>,
    /// Whose changes were missed nobody knows.
    is_any_missed: bool,
    /// While all are looked at, a page at a time: the last who was.
    all: Option<Place>,
    /// When all may be looked at next.
    not_before: Instant,
}

#[derive(Debug, Default)]
struct Place(Option<LearnerId>);

impl Due {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            changed: BTreeSet::new(),
            is_any_missed: false,
            all: None,
            not_before: Instant::now(),
        }
    }

    /// Takes a change in; `false` when none will come any more.
    fn hear(&mut self, change: Result<LearnerId, RecvError>) -> bool {
        match change {
            Ok(learner) => {
                self.changed.insert(learner);
            }
            Err(RecvError::Lagged(_)) => self.is_any_missed = true,
            Err(RecvError::Closed) => return false,
        }
        true
    }

    /// Waits until somebody is due; `false` when nobody will be any more.
    async fn wait(&mut self, changes: &mut Receiver<LearnerId>) -> bool {
        while self.changed.is_empty() && self.all.is_none() {
            tokio::select! {
                change = changes.recv() => {
                    if !self.hear(change) {
                        return false;
                    }
                }
                () = sleep_until(self.not_before), if self.is_any_missed => self.begin_all(),
            }
        }
        true
    }

    /// Takes changes in while something is done: work that takes long must not make us miss them.
    async fn hear_during<T>(
        &mut self,
        changes: &mut Receiver<LearnerId>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                change = changes.recv() => {
                    if !self.hear(change) {
                        return work.await;
                    }
                }
            }
        }
    }

    fn begin_all(&mut self) {
        if self.is_any_missed && self.all.is_none() && Instant::now() >= self.not_before {
            self.is_any_missed = false;
            self.all = Some(Place::default());
        }
    }

    fn end_all(&mut self) {
        self.all = None;
        self.not_before = Instant::now() + self.pace.all;
    }
}

impl Vault {
    /// Looks after sleeping learners whose rows change, and after what erasing left, until cancelled; what runs then is let go
    /// at once, at any point: like a kill it leaves valid repositories.
    ///
    /// Of several vaults one does it at a time: the others wait until it is gone.
    pub async fn run(&self, cancel: CancellationToken) {
        let in_turn = async {
            let mut is_after_another = false;
            loop {
                match self.store().lead(Task::Maintenance).await {
                    Ok(Some(lead)) => {
                        let changes = self.store().changes();
                        // What fell asleep while another did it, and what that one had still to do, nobody says.
                        let due = Due {
                            is_any_missed: is_after_another,
                            ..Due::new(PACE)
                        };
                        let both =
                            async { tokio::join!(self.look_after(changes, due), self.sweep()) };
                        tokio::select! {
                            _ = both => return,
                            () = lead.lost() => {}
                        }
                    }
                    Ok(None) => is_after_another = true,
                    Err(error) => {
                        tracing::warn!(%error, "whether repositories are looked after is asked again");
                    }
                }
                sleep(LEAD_AGAIN).await;
            }
        };
        cancel.run_until_cancelled(in_turn).await;
    }

    /// In rounds: those who changed, and a page of all while all are looked at.
    async fn look_after(&self, mut changes: Receiver<LearnerId>, mut due: Due) {
        let pace = due.pace;
        while due.wait(&mut changes).await {
            if due.all.is_none() {
                due.hear_during(&mut changes, sleep(pace.gather)).await;
                due.begin_all();
            }
            let mut learners = mem::take(&mut due.changed);
            learners.extend(self.page(&mut due).await);
            due.hear_during(&mut changes, self.maintain_each(&learners))
                .await;
        }
    }

    /// The next page of all; none when all are not looked at, or no more. What the store does not say is left for another time.
    async fn page(&self, due: &mut Due) -> Vec<LearnerId> {
        let Some(Place(last)) = &mut due.all else {
            return Vec::new();
        };
        match self.store().learners(last.as_ref(), PAGE, self.now()).await {
            Ok(page) => {
                let page: Vec<_> = page.into_iter().map(|row| row.id).collect();
                match page.last() {
                    Some(learner) => *last = Some(learner.clone()),
                    None => due.end_all(),
                }
                page
            }
            Err(error) => {
                tracing::warn!(%error, "the store does not say which learners there are");
                due.is_any_missed = true;
                due.end_all();
                Vec::new()
            }
        }
    }

    async fn maintain_each(&self, learners: &BTreeSet<LearnerId>) {
        futures::stream::iter(learners)
            .for_each_concurrent(AT_ONCE, |learner| self.maintain_quietly(learner))
            .await;
    }

    async fn maintain_quietly(&self, learner: &LearnerId) {
        match self.maintain(learner).await {
            Ok(done) if done.pruned => {
                tracing::info!(learner.id = %learner, removed = done.removed, "repository pruned");
            }
            Ok(_) | Err(Error::Awake | Error::NoLearner) => {}
            Err(error) => {
                tracing::warn!(learner.id = %learner, %error, "maintenance of a repository failed");
            }
        }
    }

    async fn sweep(&self) {
        let mut erased = interval(ERASED_EVERY);
        loop {
            erased.tick().await;
            if let Err(error) = self.sweep_erased(self.now() - ERASED_GRACE).await {
                tracing::warn!(%error, "what an erased learner left could not be removed yet");
            }
        }
    }
}

#[cfg(test)]
mod tests;
