//! Keeps each class's blank pods: makes what is missing, removes what is too much, of another template or strange. Whoever wakes
//! goes first: a pool is refilled while nobody waits for a pod. Where pods die, it is tried less and less often, and said.

pub(crate) mod plan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carrel_core::PodUid;
use carrel_core::lifecycle::deadlines;
use jiff::Timestamp;
use tokio::time::Instant;

use self::plan::{Have, Pace};
use crate::names::Reason;
use crate::shared::Handle;
use crate::world::pod::{Life, SeenPod};
use crate::world::{Class, World};
use crate::{api, names};

/// Looks without a hint so often: hints may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that has been starting for so long is waited for no more before others are made.
const SLOW: Duration = Duration::from_mins(2);
/// After the API server did not answer.
const SERVER_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the pools; never returns.
pub(crate) async fn run(shared: Handle) {
    let mut paces: HashMap<String, Pace> = HashMap::new();
    let mut next_create = Instant::now();
    loop {
        let hint = shared.pool.notified();
        let look = look(&shared, &mut paces);
        for (uid, why) in look.remove {
            tracing::info!(pod = %uid, why, "a pod of the pool is removed");
            if let Err(error) = shared.end_pod(uid, None, None).await {
                tracing::warn!(pod = %uid, error = crate::chain(&error), "a pod could not be deleted");
            }
        }
        let mut again = LOOK_EVERY;
        for (class, count) in look.create {
            for _ in 0..count {
                tokio::time::sleep_until(next_create).await;
                next_create = Instant::now()
                    + Duration::from_secs(1) / shared.options.refills_per_second.max(1);
                if waits(&shared.world()) {
                    again = Duration::from_millis(20);
                    break;
                }
                if let Err(error) = create(&shared, &class).await {
                    let why = crate::chain(&error);
                    tracing::warn!(
                        class = class.name,
                        why,
                        "a pod of the pool could not be made"
                    );
                    if let api::Error::Refused(_) = error {
                        let pace = paces.entry(class.hash.clone()).or_default();
                        tell(&shared, &class, pace.fails(Instant::now()), &why);
                    }
                    again = SERVER_AGAIN;
                    break;
                }
            }
        }
        tokio::select! {
            () = hint => {}
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Whether a pod that was made then and starts still will not any more.
pub(crate) fn is_late(created: Timestamp, now: Timestamp) -> bool {
    age(created, now) > deadlines::START
}

/// Whether somebody waits whom a new pod would hold up. Those whose own pod starts or restores are not among them: where
/// they come one after the other, no pool would ever be filled.
fn waits(world: &World) -> bool {
    world.gate.hurrying() > 0
}

struct Look {
    create: Vec<(Arc<Class>, usize)>,
    remove: Vec<(PodUid, &'static str)>,
}

fn look(shared: &Handle, paces: &mut HashMap<String, Pace>) -> Look {
    let (world, now) = (shared.world(), shared.now());
    let mut create = Vec::new();
    let mut remove = strange(&world, now);
    // What is made of something else is tried anew.
    paces.retain(|hash, _| world.classes.values().any(|class| class.hash == *hash));
    let mut died: HashMap<&str, BTreeMap<PodUid, &str>> = HashMap::new();
    // Who is told to go dies of nothing.
    let stays = |pod: &&SeenPod| pod.learner.is_none() && !pod.deleted;
    for pod in world.pods.odd().filter(stays) {
        if let Some(why) = pod.end() {
            died.entry(&pod.hash).or_default().insert(pod.uid, why);
        }
    }
    for class in world.classes.values() {
        let blanks = world.pods.blanks(&class.hash);
        let have = Have {
            ready: blanks.map_or(0, |blanks| blanks.ready.len()),
            starting: blanks.map_or(0, |blanks| blanks.starting.len()),
            slow: blanks.map_or(0, |blanks| {
                let slow = |(created, _): &&_| age(*created, now) > SLOW;
                blanks.starting.iter().take_while(slow).count()
            }),
        };
        let size = class.spec.warm_pool.size as usize;
        let pace = paces.entry(class.hash.clone()).or_default();
        let dead = died.remove(class.hash.as_str()).unwrap_or_default();
        let why = dead.values().next().copied().unwrap_or_default();
        let pause = pace.died(dead.into_keys().collect(), Instant::now());
        tell(shared, class, pause.filter(|_| size > 0), why);
        let missing = pace.create(size, have, Instant::now());
        if missing > 0 {
            create.push((Arc::clone(class), missing));
        }
        let too_many = (have.ready + have.starting).saturating_sub(size);
        let is_theirs = |id: &_| {
            let known = world.learners.get(id);
            known.is_some_and(|known| known.class == class.name)
        };
        // A new leader does not know for whom they were made: whoever waits takes them.
        if too_many == 0 || world.gate.anybody_waits(is_theirs) {
            continue;
        }
        // The youngest go: the oldest are ready.
        let youngest = blanks.into_iter().flat_map(|blanks| {
            blanks
                .starting
                .iter()
                .rev()
                .chain(blanks.ready.iter().rev())
        });
        remove.extend(youngest.take(too_many).filter_map(|(_, uid)| {
            let pod = world.pods.get(*uid)?;
            // One that was made for somebody who found another is young: it may be somebody's in a moment.
            (age(pod.created, now) > names::STRANGE).then_some((pod.uid, "the pool is full"))
        }));
    }
    Look { create, remove }
}

/// Says that pods of a class come to nothing, when that is followed by a pause.
fn tell(shared: &Handle, class: &Class, pause: Option<Duration>, why: &str) {
    let Some(pause) = pause.filter(|_| !class.uid.is_empty()) else {
        return;
    };
    let note = format!(
        "no pod for its pool is made for {} s: {why}",
        pause.as_secs()
    );
    shared
        .events
        .class(&class.name, &class.uid, Reason::PoolPodFailed, &note);
}

/// Pods that are nobody's and nothing will become of.
fn strange(world: &World, now: Timestamp) -> Vec<(PodUid, &'static str)> {
    let odd = world.pods.odd().filter_map(|pod| {
        let why = match &pod.life {
            Life::Ended { .. } => "it has ended",
            // The watch of learners may be behind that of pods.
            Life::Starting | Life::Running if age(pod.created, now) > names::STRANGE => {
                "its learner has another"
            }
            Life::Starting | Life::Running | Life::Leaving { .. } => return None,
        };
        Some((pod.uid, why))
    });
    let known: HashSet<&str> = world
        .classes
        .values()
        .map(|class| class.hash.as_str())
        .collect();
    let outdated = world
        .pods
        .all_blanks()
        .filter(|(hash, _)| !known.contains(hash));
    let outdated = outdated.flat_map(|(_, blanks)| blanks.ready.iter().chain(&blanks.starting));
    let outdated = outdated.map(|(_, uid)| (*uid, "its class has changed"));
    let late = world.pods.all_blanks().flat_map(|(_, blanks)| {
        let late = |(created, _): &&(Timestamp, PodUid)| is_late(*created, now);
        blanks.starting.iter().take_while(late)
    });
    let late = late.map(|(_, uid)| (*uid, "it did not start in time"));
    odd.chain(outdated).chain(late).collect()
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

async fn create(shared: &Handle, class: &Class) -> Result<(), api::Error> {
    let place = shared.roomiest();
    let place = place.map_err(|(_, why)| api::Error::Full(why))?;
    shared.make_pod(class, place).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Progress;
    use crate::shared::tests::{Parts, asked, at, class, id};
    use crate::world::pods::tests::pod;

    #[tokio::test]
    async fn one_that_does_not_start_holds_up_nobody_for_long_and_goes_in_the_end() {
        for (seconds, asks, goes) in [(60, 0, 0), (180, 1, 0), (1860, 1, 1)] {
            let parts = Parts::new(2, 1);
            let mut stuck = pod(1, 1, Life::Starting);
            stuck.created = at(-seconds);
            let mut world = parts.shared.world();
            world.classes.insert("free".to_owned(), class(3));
            world.pods.put(stuck);
            // Somebody waits, whom it does not serve any better.
            world.put_learner(&id("ada"), asked(0));
            world.gate.ask(&id("ada"), at(0));
            drop(world);
            let seen = look(&parts.shared, &mut HashMap::new());
            let made: usize = seen.create.iter().map(|(_, count)| count).sum();
            assert_eq!((made, seen.remove.len()), (asks, goes), "after {seconds} s");
        }
    }

    #[tokio::test]
    async fn who_is_told_to_go_has_not_died() {
        let mut parts = Parts::new(1, 1);
        let mut paces = HashMap::new();
        let mut world = parts.shared.world();
        world.classes.insert("free".to_owned(), class(3));
        for number in 1..=3 {
            let mut told = pod(
                number,
                1,
                Life::Ended {
                    farewell: None,
                    reason: String::new(),
                },
            );
            told.deleted = true;
            world.pods.put(told);
        }
        drop(world);
        for _ in 0..3 {
            assert_eq!(look(&parts.shared, &mut paces).create.len(), 1);
        }
        assert!(parts.events.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_is_more_than_a_pool_goes_when_nobody_of_its_class_waits() {
        let parts = Parts::new(2, 1);
        let mut world = parts.shared.world();
        world.classes.insert("free".to_owned(), class(1));
        for number in 1..=3 {
            let mut old = pod(number, 1, Life::Running);
            old.created = at(-60);
            world.pods.put(old);
        }
        let mut bob = asked(0);
        bob.class = "paid".to_owned();
        world.put_learner(&id("ada"), asked(0));
        world.put_learner(&id("bob"), bob);
        world.gate.ask(&id("bob"), at(0));
        drop(world);
        let goes = || look(&parts.shared, &mut HashMap::new()).remove.len();
        assert_eq!(goes(), 2);
        parts.shared.world().gate.ask(&id("ada"), at(0));
        assert_eq!(goes(), 0, "she stands in the line");
        let mut world = parts.shared.world();
        world.gate.gone(&id("ada"));
        world.gate.adopt(&id("ada"), Progress::Hurries, at(0));
        drop(world);
        assert_eq!(goes(), 0, "she is let in");
        let mut world = parts.shared.world();
        world.gate.goes_on(&id("ada"), Progress::Waits, at(0));
        drop(world);
        assert_eq!(goes(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_each_pod_dies_none_is_made_for_a_while_which_the_class_says() {
        let mut parts = Parts::new(1, 1);
        let (free, mut paces) = (class(3), HashMap::new());
        let asks = |parts: &Parts, paces: &mut HashMap<String, Pace>| {
            let look = look(&parts.shared, paces);
            look.create.iter().map(|(_, count)| count).sum::<usize>()
        };
        let dies = |parts: &Parts, number, why: &str| {
            let reason = why.to_owned();
            let life = Life::Ended {
                farewell: None,
                reason,
            };
            parts.shared.world().pods.put(pod(number, 1, life));
        };
        let brings = |class: Arc<Class>| {
            let mut world = parts.shared.world();
            world.classes.insert(class.name.clone(), class);
        };
        brings(Arc::clone(&free));
        assert_eq!(asks(&parts, &mut paces), 1);
        dies(&parts, 1, "OOMKilled");
        assert_eq!(asks(&parts, &mut paces), 1, "the first costs nothing");
        assert!(parts.events.try_recv().is_err(), "nor is it said");
        dies(&parts, 2, "OOMKilled");
        assert_eq!(asks(&parts, &mut paces), 0);
        let (event, about) = parts.events.try_recv().unwrap();
        assert_eq!(event.reason, "PoolPodFailed");
        let note = "no pod for its pool is made for 1 s: OOMKilled";
        assert_eq!(event.note.as_deref(), Some(note));
        assert_eq!(about.name.as_deref(), Some("free"));
        assert_eq!(asks(&parts, &mut paces), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(asks(&parts, &mut paces), 1);
        assert!(parts.events.try_recv().is_err(), "each pause is said once");
        // Made of something else, it is tried at once.
        dies(&parts, 3, "OOMKilled");
        assert_eq!(asks(&parts, &mut paces), 0);
        let mut changed = Class::clone(&free);
        changed.hash = "def".to_owned();
        brings(Arc::new(changed));
        assert_eq!(asks(&parts, &mut paces), 1);
    }
}
