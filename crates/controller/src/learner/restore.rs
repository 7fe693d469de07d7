//! An older state of the workspace that is wanted, taken while there is no incarnation and before the learner gets a place. Who is asked for
//! meanwhile waits, however long that takes, and says for what: from the state that there is they would go on from the wrong one.
//!
//! The vault is asked, and what it said is noted in the status. Until that is noted nobody names a pod: whoever knows of the wish waits, and
//! whoever does not knows an older version of the object and fails by compare-and-set. So the vault may be asked again, by the next
//! leader too, and never after somebody has gone on from there; what still comes late it refuses, by the epoch after which the learner
//! was seen asleep.

use std::sync::Arc;
use std::time::Duration;

use carrel_core::{Epoch, LearnerId, SnapshotId, backoff};
use carrel_crd::RestoreStatus;
use carrel_protocol::Code;
use carrel_protocol::vault::RestoreWish;
use carrel_wire::vault::{self as remote, Error};
use jiff::{SignedDuration, Timestamp};

use super::Trouble;
use crate::api;
use crate::names::Reason;
use crate::options::Options;
use crate::shared::Handle;
use crate::world::Known;

/// Between tries to ask while nobody leads.
const LEADS_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// The longest pause between questions to a vault that does not serve.
const ASK_SELDOM: Duration = Duration::from_mins(1);
/// What is said of one who has gone on elsewhere than in this object, as when it was made anew.
const GONE_ON: &str =
    "a newer incarnation than this object knows has been here; wake the learner, and ask anew";
/// What is said of one who waits.
const FIRST: &str = "an older state of the workspace is taken first";
/// The most characters of a message.
const MESSAGE: usize = 1000;

/// What the vault is asked for: this state, for a learner who sleeps after this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    snapshot: SnapshotId,
    epoch: Epoch,
}

/// How far the vault is with an older state.
#[derive(Debug, Default)]
pub(crate) enum Restoring {
    /// It was not asked.
    #[default]
    Not,
    /// It is asked; why it did not serve before, if it did not.
    Asked(String),
    /// It has answered, after so many times in a row that it did not serve.
    Answered(Question, u32, Answer),
    /// It did not serve, so many times in a row, and is asked again then; why.
    Again(u32, Timestamp, String),
}

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is taken.
    Taken,
    /// It will not be.
    Refused(String),
    /// Nothing that counts: nobody answers, or what is there does not serve.
    Away(String),
}

/// How a look goes on.
pub(super) enum Next {
    /// Nothing is to be taken now.
    GoOn,
    /// Look again at once.
    Again,
    /// Nobody gets a place before it is taken.
    Wait(Waits),
}

/// For what one waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Waits {
    /// Why, for people.
    pub(super) why: String,
    /// Look again then, if not before.
    pub(super) until: Timestamp,
}

impl Waits {
    pub(super) fn new(away: &str, until: Timestamp) -> Self {
        let why = match away {
            "" => FIRST.to_owned(),
            away => format!("{FIRST}: {away}"),
        };
        Self { why, until }
    }
}

/// What is to be done first for a learner.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    /// Nothing is wanted any more.
    Forget,
    /// The vault is to be asked.
    Ask(Question),
}

/// Whether something is to be done for a learner who rests otherwise.
pub(crate) fn is_due(known: &Known) -> bool {
    due(known).is_some()
}

fn due(known: &Known) -> Option<Due> {
    let noted = known.beside.restore.as_ref();
    let Some(wish) = &known.restore else {
        // What is wanted next may be the same.
        return noted.map(|_| Due::Forget);
    };
    let is_noted = noted.is_some_and(|noted| noted.snapshot_id == wish.as_str());
    let is_awake = known.status.pod.is_some();
    let question = || Question {
        snapshot: wish.clone(),
        epoch: known.status.epoch,
    };
    (!is_noted && !is_awake).then(|| Due::Ask(question()))
}

/// Does what is due; a learner of whom nothing is wanted costs a look at the cache.
pub(super) async fn first(
    shared: &Handle,
    id: &LearnerId,
    now: Timestamp,
) -> Result<Next, Trouble> {
    match take_up(shared, id, now) {
        Doing::Nothing => Ok(Next::GoOn),
        Doing::Waiting(waits) => Ok(Next::Wait(waits)),
        Doing::Forgetting(known) => write(shared, id, &known, None, now).await,
        Doing::Asking(question, tries, waits) => {
            ask(shared, id, question, tries);
            Ok(Next::Wait(waits))
        }
        Doing::Hearing(known, asked, tries, answer) => match answer {
            Answer::Taken => note(shared, id, &known, &asked.snapshot, "", now).await,
            Answer::Refused(why) => {
                let next = note(shared, id, &known, &asked.snapshot, &why, now).await?;
                tell(shared, id, &known.uid, Reason::RestoreRefused, &why);
                Ok(next)
            }
            Answer::Away(why) => {
                tell(shared, id, &known.uid, Reason::RestoreWaits, &why);
                let pause = backoff::delay(tries.saturating_add(2), ASK_SELDOM);
                set(
                    shared,
                    id,
                    Restoring::Again(tries.saturating_add(1), now + pause, why),
                );
                Ok(Next::Again)
            }
        },
    }
}

enum Doing {
    Nothing,
    Waiting(Waits),
    Forgetting(Arc<Known>),
    Asking(Question, u32, Waits),
    Hearing(Arc<Known>, Question, u32, Answer),
}

fn take_up(shared: &Handle, id: &LearnerId, now: Timestamp) -> Doing {
    let mut guard = shared.world();
    let world = &mut *guard;
    let Some(known) = world.learners.get(id) else {
        return Doing::Nothing;
    };
    let Some(due) = due(known) else {
        return Doing::Nothing;
    };
    let stir = world.stirs.entry(id.clone()).or_default();
    match (due, &stir.restoring) {
        // One question at a time, whatever is wanted meanwhile.
        (_, Restoring::Asked(away)) => Doing::Waiting(Waits::new(away, now + ASK_SELDOM)),
        (Due::Forget, _) => {
            stir.restoring = Restoring::Not;
            Doing::Forgetting(Arc::clone(known))
        }
        (Due::Ask(question), Restoring::Answered(asked, tries, answer)) if *asked == question => {
            let known = Arc::clone(known);
            Doing::Hearing(known, question, *tries, answer.clone())
        }
        (Due::Ask(_), Restoring::Again(_, at, away)) if now < *at => {
            Doing::Waiting(Waits::new(away, *at))
        }
        (Due::Ask(question), before) => {
            let (tries, away) = match before {
                Restoring::Again(tries, _, away) => (*tries, away.clone()),
                Restoring::Not | Restoring::Asked(_) | Restoring::Answered(..) => {
                    (0, String::new())
                }
            };
            let waits = Waits::new(&away, now + ASK_SELDOM);
            stir.restoring = Restoring::Asked(away);
            Doing::Asking(question, tries, waits)
        }
    }
}

/// Asks the vault, beside everything else: it may read for minutes.
fn ask(shared: &Handle, id: &LearnerId, question: Question, tries: u32) {
    let (handle, id) = (Handle::clone(shared), id.clone());
    shared.spawn(async move {
        let restoring = match answer(&handle, &id, &question).await {
            Some(answer) => Restoring::Answered(question, tries, answer),
            None => Restoring::Again(tries, handle.now() + LEADS_AGAIN, String::new()),
        };
        set(&handle, &id, restoring);
        handle.queue.now(&id);
    });
}

/// What the vault says; `None`: only who leads asks.
async fn answer(shared: &Handle, id: &LearnerId, question: &Question) -> Option<Answer> {
    let _turn = shared.restores.acquire().await.ok()?;
    if !shared.is_leader() {
        return None;
    }
    let Options {
        signer,
        vault,
        trust,
        ..
    } = &shared.options;
    let token = match signer.vault_restore_token(id, question.epoch, shared.now()) {
        Ok(token) => token,
        Err(error) => return Some(Answer::Away(error.to_string())),
    };
    let wish = RestoreWish {
        snapshot_id: question.snapshot.clone(),
    };
    let asked = remote::restore(vault, trust, &token, id.as_str(), &wish).await;
    Some(asked.map_or_else(|error| refusal(&error), |_| Answer::Taken))
}

/// Whether it is of use to ask again.
fn refusal(error: &Error) -> Answer {
    if let Error::Refused(problem) = error {
        match problem.code {
            Code::NotFound | Code::Forbidden => return Answer::Refused(problem.detail.clone()),
            Code::SnapshotUnreadable => return Answer::Refused(problem.to_string()),
            Code::StaleEpoch => return Answer::Refused(GONE_ON.to_owned()),
            _ => {}
        }
    }
    Answer::Away(format!("the vault: {}", crate::chain(error)))
}

/// Notes that it is taken, or why not.
async fn note(
    shared: &Handle,
    id: &LearnerId,
    known: &Known,
    snapshot: &SnapshotId,
    message: &str,
    now: Timestamp,
) -> Result<Next, Trouble> {
    let noted = RestoreStatus {
        snapshot_id: snapshot.to_string(),
        message: message.chars().take(MESSAGE).collect(),
    };
    let next = write(shared, id, known, Some(noted), now).await?;
    set(shared, id, Restoring::Not);
    Ok(next)
}

fn tell(shared: &Handle, id: &LearnerId, uid: &str, reason: Reason, why: &str) {
    tracing::warn!(learner.id = %id, why, "an older state that is wanted is not taken");
    shared.events.learner(id, uid, reason, why);
}

/// How far it is; whose object is gone is not known any more.
fn set(shared: &Handle, id: &LearnerId, restoring: Restoring) {
    if let Some(stir) = shared.world().stirs.get_mut(id) {
        stir.restoring = restoring;
    }
}

/// Writes it into the status, if that is still as it was seen.
async fn write(
    shared: &Handle,
    id: &LearnerId,
    known: &Known,
    noted: Option<RestoreStatus>,
    now: Timestamp,
) -> Result<Next, Trouble> {
    let mut beside = known.beside.clone();
    beside.restore = noted;
    let status = carrel_crd::into_status(&known.status, beside, known.generation, now);
    let version = known.version.to_string();
    match shared
        .writer
        .put_status(id.as_str(), &version, status)
        .await
    {
        Ok(learner) => {
            if let Some((_, known)) = Known::read(&learner) {
                shared.world().put_learner(id, known);
            }
            Ok(Next::Again)
        }
        Err(api::Error::Conflict) => Err(Trouble::Conflict),
        Err(error) => {
            tracing::warn!(learner.id = %id, error = crate::chain(&error), "a status could not be written");
            Err(Trouble::Server)
        }
    }
}

#[cfg(test)]
mod tests;
