//! Many callers' questions in one statement: who comes alone is served at once, who comes meanwhile goes with the others next.
//! Of each learner one question at a time, in the order in which they came.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use carrel_core::LearnerId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Statements at a time: while some wait for the disk, the next are made.
const LANES: usize = 4;
/// The most questions of one statement.
const TOGETHER: usize = 64;
/// Callers beyond these wait for room.
const WAITING: usize = 1024;

/// Where questions are asked.
#[derive(Debug)]
pub(crate) struct Gather<Q, A> {
    /// A learner's questions are all of one.
    lanes: Vec<mpsc::Sender<Asked<Q, A>>>,
}

#[derive(Debug)]
struct Asked<Q, A> {
    learner: LearnerId,
    question: Q,
    answer: oneshot::Sender<A>,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Starts what answers, until it is cancelled: `work` gives an answer for each question, in their order, no two of which
    /// are of one learner.
    pub(crate) fn start<W, F>(work: W, tracker: &TaskTracker, cancel: &CancellationToken) -> Self
    where
        W: Fn(Vec<Q>) -> F + Clone + Send + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let lane = || {
            let (ask, asked) = mpsc::channel(WAITING);
            let answers = lane(asked, work.clone());
            tracker.spawn(cancel.clone().run_until_cancelled_owned(answers));
            ask
        };
        Self {
            lanes: std::iter::repeat_with(lane).take(LANES).collect(),
        }
    }

    /// Asks. `None` when nobody answers any more.
    ///
    /// # Cancel safety
    /// A question whose caller goes away is not begun; one that was begun is done.
    pub(crate) async fn ask(&self, learner: &LearnerId, question: Q) -> Option<A> {
        let mut hasher = DefaultHasher::new();
        learner.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % self.lanes.len() as u64).ok()?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            learner: learner.clone(),
            question,
            answer,
        };
        self.lanes[lane].send(asked).await.ok()?;
        answered.await.ok()
    }
}

async fn lane<Q, A, W, F>(mut asked: mpsc::Receiver<Asked<Q, A>>, work: W)
where
    W: Fn(Vec<Q>) -> F,
    F: Future<Output = Vec<A>>,
{
    let mut waiting: Vec<Asked<Q, A>> = Vec::new();
    loop {
        if waiting.is_empty() && asked.recv_many(&mut waiting, TOGETHER).await == 0 {
            return;
        }
        let room = waiting.len().max(TOGETHER);
        while waiting.len() < room
            && let Ok(more) = asked.try_recv()
        {
            waiting.push(more);
        }
        waiting.retain(|asked| !asked.answer.is_closed());
        let mut learners = HashSet::new();
        let (now, later) = waiting
            .into_iter()
            .partition(|asked| learners.len() < TOGETHER && learners.insert(asked.learner.clone()));
        waiting = later;
        let (questions, callers): (Vec<Q>, Vec<oneshot::Sender<A>>) = now
            .into_iter()
            .map(|asked: Asked<Q, A>| (asked.question, asked.answer))
            .unzip();
        if questions.is_empty() {
            continue;
        }
        let answers = work(questions).await;
        for (caller, answer) in callers.into_iter().zip(answers) {
            // One that went away meanwhile asks again.
            drop(caller.send(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use carrel_store::suite::fixture::id;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Answers twice the number, one batch for each permit; what batches it saw.
    fn doubling(permits: &Arc<Semaphore>) -> (Gather<u32, u32>, Seen, TaskTracker) {
        let seen = Seen::default();
        let (kept, permits) = (Arc::clone(&seen), Arc::clone(permits));
        let work = move |questions: Vec<u32>| {
            kept.lock()
                .expect("nobody panics with it")
                .push(questions.clone());
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.expect("it is open").forget();
                questions.into_iter().map(|number| number * 2).collect()
            }
        };
        let tracker = TaskTracker::new();
        let gather = Gather::start(work, &tracker, &CancellationToken::new());
        (gather, seen, tracker)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_meanwhile_goes_together_and_each_gets_its_own_answer() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, seen, _tracker) = doubling(&permits);
        let learners: Vec<_> = (0..40).map(|n| id(&format!("l{n}"))).collect();
        let asked = (0..40_u32).map(|n| gather.ask(&learners[n as usize], n));
        let answered = join_all(asked);
        let goes = async {
            // Each lane has begun with what it saw first.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            permits.add_permits(40);
        };
        let (answers, ()) = tokio::join!(answered, goes);
        let expected: Vec<_> = (0..40).map(|n| Some(n * 2)).collect();
        assert_eq!(answers, expected);
        let batches = seen.lock().expect("nobody panics with it").len();
        assert!(batches <= 2 * LANES, "{batches} batches");
    }

    #[tokio::test(start_paused = true)]
    async fn a_learner_has_one_question_in_a_batch_and_they_keep_their_order() {
        let permits = Arc::new(Semaphore::new(100));
        let (gather, seen, _tracker) = doubling(&permits);
        let ada = id("ada");
        let answers = join_all((0..5).map(|n| gather.ask(&ada, n))).await;
        assert_eq!(answers, [0, 2, 4, 6, 8].map(Some));
        let seen = seen.lock().expect("nobody panics with it");
        assert_eq!(*seen, [[0], [1], [2], [3], [4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_not_begun() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, seen, _tracker) = doubling(&permits);
        let ada = id("ada");
        let first = gather.ask(&ada, 1);
        let gone = async {
            let ask = gather.ask(&ada, 2);
            drop(tokio::time::timeout(std::time::Duration::from_secs(1), ask).await);
            permits.add_permits(3);
        };
        let (first, ()) = tokio::join!(first, gone);
        assert_eq!(first, Some(2));
        assert_eq!(gather.ask(&ada, 3).await, Some(6));
        assert_eq!(*seen.lock().expect("nobody panics with it"), [[1], [3]]);
    }
}
