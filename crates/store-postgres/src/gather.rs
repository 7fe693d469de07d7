//! Many callers' questions in one statement: who comes alone is served at once, who comes meanwhile goes with the others next.
//! Of each key (a learner, most often) one question at a time, in the order in which they came; who asks much waits for nobody
//! but itself.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, Inner};

/// Who waits behind a statement waits no longer than this for it: its connection may have fallen silent.
const WITHIN: Duration = Duration::from_secs(5);
/// The most questions of one statement.
const TOGETHER: usize = 64;
/// The most questions of one key that wait; more are refused, so that the others find room.
const OF_ONE: usize = 128;
/// Callers beyond these wait for room.
const WAITING: usize = 1024;

/// Where questions are asked.
#[derive(Debug)]
pub(crate) struct Gather<K, Q, A> {
    /// Statements at a time: while some wait for the disk, the next are made. A key's questions are all of one.
    lanes: Vec<mpsc::Sender<Asked<K, Q, A>>>,
}

#[derive(Debug)]
struct Asked<K, Q, A> {
    key: K,
    question: Q,
    answer: oneshot::Sender<Answer<A>>,
}

type Answer<A> = Result<A, Arc<sqlx::Error>>;

impl<K, Q, A> Gather<K, Q, A>
where
    K: Clone + Eq + Hash + Send + 'static,
    Q: Send + 'static,
    A: Send + 'static,
{
    /// Starts what answers, until it is cancelled: `work` gives an answer for each question, in their order, no two of which
    /// are of one key.
    pub(crate) fn start<W, F>(
        lanes: usize,
        work: W,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self
    where
        W: Fn(Vec<Q>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Vec<A>, sqlx::Error>> + Send + 'static,
    {
        let lane = || {
            let (ask, asked) = mpsc::channel(WAITING);
            let answers = lane(asked, work.clone());
            tracker.spawn(cancel.clone().run_until_cancelled_owned(answers));
            ask
        };
        Self {
            lanes: std::iter::repeat_with(lane).take(lanes).collect(),
        }
    }

    /// Asks.
    ///
    /// # Cancel safety
    /// A question whose caller goes away is not begun; one that was begun is done.
    pub(crate) async fn ask(&self, key: K, question: Q) -> Inner<A> {
        let lane = place_of(&key, self.lanes.len());
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            key,
            question,
            answer,
        };
        if self.lanes[lane].send(asked).await.is_err() {
            return Err(sqlx::Error::PoolClosed.into());
        }
        // Refused among too many of its key, or at the end of all.
        let answer = answered.await.map_err(|_gone| sqlx::Error::PoolTimedOut)?;
        answer.map_err(Fault::OfMany)
    }
}

/// Which of so many places is a key's; others may have the same.
pub(crate) fn place_of(key: &impl Hash, places: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let place = hasher.finish() % places as u64;
    usize::try_from(place).unwrap_or_default()
}

/// Questions that wait, by key.
struct Waiting<K, Q, A> {
    of: HashMap<K, VecDeque<Asked<K, Q, A>>>,
    /// Whose turn it is.
    turns: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, Q, A> Waiting<K, Q, A> {
    fn push(&mut self, asked: Asked<K, Q, A>) {
        let queue = self.of.entry(asked.key.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(asked.key.clone());
        }
        if queue.len() >= OF_ONE {
            queue.retain(|asked| !asked.answer.is_closed());
        }
        if queue.len() < OF_ONE {
            queue.push_back(asked);
        }
    }

    /// The oldest question of each whose turn it is that somebody still waits for.
    fn next(&mut self) -> Vec<Asked<K, Q, A>> {
        let mut next = Vec::new();
        let mut again = Vec::new();
        while next.len() < TOGETHER
            && let Some(key) = self.turns.pop_front()
        {
            let queue = self.of.get_mut(&key);
            let queue = queue.expect("whose turn it is has questions");
            let asked = std::iter::from_fn(|| queue.pop_front()).find(|a| !a.answer.is_closed());
            next.extend(asked);
            if queue.is_empty() {
                self.of.remove(&key);
            } else {
                again.push(key);
            }
        }
        self.turns.extend(again);
        next
    }
}

async fn lane<K, Q, A, W, F>(mut asked: mpsc::Receiver<Asked<K, Q, A>>, work: W)
where
    K: Clone + Eq + Hash,
    W: Fn(Vec<Q>) -> F,
    F: Future<Output = Result<Vec<A>, sqlx::Error>>,
{
    let mut waiting = Waiting {
        of: HashMap::new(),
        turns: VecDeque::new(),
    };
    loop {
        if waiting.turns.is_empty() {
            let Some(first) = asked.recv().await else {
                return;
            };
            waiting.push(first);
        }
        while waiting.turns.len() < TOGETHER
            && let Ok(more) = asked.try_recv()
        {
            waiting.push(more);
        }
        let (questions, callers): (Vec<Q>, Vec<oneshot::Sender<Answer<A>>>) = waiting
            .next()
            .into_iter()
            .map(|asked| (asked.question, asked.answer))
            .unzip();
        if questions.is_empty() {
            continue;
        }
        // Given up, it drops its connection; what it did all the same is found by who asks again.
        let done = timeout(WITHIN, work(questions)).await;
        let answers: Vec<Answer<A>> = match done.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = Arc::new(error);
                callers.iter().map(|_| Err(Arc::clone(&error))).collect()
            }
        };
        for (caller, answer) in callers.into_iter().zip(answers) {
            // One that went away meanwhile asks again.
            drop(caller.send(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::{join, join_all};
    use tokio::sync::Semaphore;
    use tokio::time::{Instant, sleep};

    use super::*;

    const LANES: usize = 4;

    type Seen = Arc<Mutex<Vec<Vec<usize>>>>;

    /// Answers twice the number, one batch for each permit; what batches it saw.
    fn doubling(
        lanes: usize,
        permits: &Arc<Semaphore>,
    ) -> (Gather<&'static str, usize, usize>, Seen) {
        let seen = Seen::default();
        let (kept, permits) = (Arc::clone(&seen), Arc::clone(permits));
        let work = move |questions: Vec<usize>| {
            kept.lock()
                .expect("nobody panics with it")
                .push(questions.clone());
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.expect("it is open").forget();
                Ok(questions.into_iter().map(|number| number * 2).collect())
            }
        };
        let gather = Gather::start(lanes, work, &TaskTracker::new(), &CancellationToken::new());
        (gather, seen)
    }

    fn taken(seen: &Seen) -> Vec<Vec<usize>> {
        seen.lock().expect("nobody panics with it").clone()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_meanwhile_goes_together_and_each_gets_its_own_answer() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, seen) = doubling(LANES, &permits);
        let keys: Vec<&str> = "abcdefghijklmnopqrstuvwxyz".split("").collect();
        let answered = join_all(keys.iter().zip(0..).map(|(key, n)| gather.ask(*key, n)));
        let goes = async {
            // Each lane has begun with what it saw first.
            sleep(Duration::from_secs(1)).await;
            permits.add_permits(keys.len());
        };
        let (answers, ()) = join(answered, goes).await;
        for (answer, n) in answers.into_iter().zip(0..) {
            assert_eq!(answer.expect("an answer"), n * 2);
        }
        assert!(taken(&seen).len() <= 2 * LANES, "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_one_question_in_a_batch_and_they_keep_their_order() {
        let permits = Arc::new(Semaphore::new(100));
        let (gather, seen) = doubling(LANES, &permits);
        let answers = join_all((0..5).map(|n| gather.ask("ada", n))).await;
        for (answer, n) in answers.into_iter().zip(0..) {
            assert_eq!(answer.expect("an answer"), n * 2);
        }
        assert_eq!(taken(&seen), [[0], [1], [2], [3], [4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_much_waits_for_nobody_but_itself_and_too_much_is_refused() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, seen) = doubling(1, &permits);
        let flood = join_all((0..WAITING).map(|n| gather.ask("ada", n)));
        let other = async {
            sleep(Duration::from_secs(1)).await;
            let asked = gather.ask("bob", 9_000);
            let goes = async {
                sleep(Duration::from_secs(1)).await;
                permits.add_permits(WAITING);
            };
            join(asked, goes).await.0
        };
        let (flood, other) = join(flood, other).await;
        assert_eq!(other.expect("an answer"), 18_000);
        assert_eq!(taken(&seen)[1], [1, 9_000], "with the second of the flood");
        let answered = flood.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(answered, OF_ONE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_behind_a_statement_that_is_not_answered_does_not_wait_for_it() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, _) = doubling(1, &permits);
        let began = Instant::now();
        let silent = gather.ask("ada", 1);
        let behind = async {
            sleep(Duration::from_secs(1)).await;
            let asked = gather.ask("bob", 2);
            let heals = async {
                sleep(WITHIN).await;
                permits.add_permits(1);
            };
            join(asked, heals).await.0
        };
        let (silent, behind) = join(silent, behind).await;
        silent.expect_err("it is given up");
        assert_eq!(behind.expect("an answer"), 4);
        assert_eq!(began.elapsed(), WITHIN + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_not_begun() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, seen) = doubling(LANES, &permits);
        let first = gather.ask("ada", 1);
        let gone = async {
            drop(timeout(Duration::from_secs(1), gather.ask("ada", 2)).await);
            permits.add_permits(3);
        };
        let (first, ()) = join(first, gone).await;
        assert_eq!(first.expect("an answer"), 2);
        assert_eq!(gather.ask("ada", 3).await.expect("an answer"), 6);
        assert_eq!(taken(&seen), [[1], [3]]);
    }
}
