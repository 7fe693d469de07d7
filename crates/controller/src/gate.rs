//! Who may start now: so many a second, so many at once, so many alive; the first to ask is the first to start. Whoever starts slowly
//! lives on and holds up nobody: a class whose pods no node takes, or one whose agents never get ready, must not stop the others.
//! It decides from what it is told, the time included.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use carrel_core::LearnerId;
use jiff::Timestamp;

use crate::rate::Rate;

/// An idle second may be made up for, no more.
const MADE_UP: Duration = Duration::from_secs(1);
/// How long one counts as starting at most: longer than a start takes whose image is there.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// What is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Incarnations alive at once.
    pub live: u32,
    /// Incarnations between their admission and their readiness at once, but for those that are slow.
    pub starting: u32,
    /// Starts a second.
    pub per_second: u32,
}

/// How far one is who was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Not ready yet, and nothing but us and the API server is in the way.
    Hurries,
    /// Not ready yet, and its pod has to start first, or to restore.
    Waits,
    /// Ready, or so slow that nobody is to wait for it.
    Lives,
}

impl Progress {
    fn starts(self) -> bool {
        match self {
            Self::Hurries | Self::Waits => true,
            Self::Lives => false,
        }
    }
}

/// The place of one who was let in.
#[derive(Debug, Clone, Copy)]
struct Place {
    progress: Progress,
    /// Since when it starts, or did last.
    since: Timestamp,
}

/// The gate before a start.
#[derive(Debug)]
pub(crate) struct Gate {
    budget: Budget,
    /// Who lives, and how far they are.
    living: HashMap<LearnerId, Place>,
    /// Who began to start, the first first; some are ready by now, or gone.
    starts: VecDeque<(Timestamp, LearnerId)>,
    starting: usize,
    hurrying: usize,
    waiting: BTreeMap<(Timestamp, u64), LearnerId>,
    places: HashMap<LearnerId, (Timestamp, u64)>,
    asked: u64,
    rate: Rate,
}

impl Gate {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            living: HashMap::new(),
            starts: VecDeque::new(),
            starting: 0,
            hurrying: 0,
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            asked: 0,
            rate: Rate::new(budget.per_second, MADE_UP),
        }
    }

    /// Stands in the line, unless they do or live already.
    pub(crate) fn ask(&mut self, learner: &LearnerId, now: Timestamp) {
        if self.living.contains_key(learner) || self.places.contains_key(learner) {
            return;
        }
        self.asked += 1;
        let place = (now, self.asked);
        self.waiting.insert(place, learner.clone());
        self.places.insert(learner.clone(), place);
    }

    /// Lets in whoever may start now; and says when to look again though nobody goes.
    pub(crate) fn admit(&mut self, now: Timestamp) -> (Vec<LearnerId>, Option<Timestamp>) {
        self.pass_by_the_slow(now);
        let mut admitted = Vec::new();
        while self.living.len() < self.budget.live as usize {
            match self.waiting.first_key_value() {
                None => break,
                Some(((place, _), _)) if *place > now => return (admitted, Some(*place)),
                Some(_) => {}
            }
            if self.starting >= self.budget.starting as usize {
                let first = self.starts.front();
                return (admitted, first.map(|(since, _)| *since + STARTS_WITHIN));
            }
            if let Err(at) = self.rate.take(now) {
                return (admitted, Some(at));
            }
            let Some((_, learner)) = self.waiting.pop_first() else {
                break;
            };
            self.places.remove(&learner);
            self.adopt(&learner, Progress::Hurries, now);
            admitted.push(learner);
        }
        (admitted, None)
    }

    /// Whoever began so long ago counts as starting no more.
    fn pass_by_the_slow(&mut self, now: Timestamp) {
        let is_slow = |(since, _): &mut (Timestamp, _)| *since + STARTS_WITHIN <= now;
        while let Some((since, learner)) = self.starts.pop_front_if(is_slow) {
            let place = self.living.get(&learner);
            if place.is_some_and(|place| place.since == since) {
                self.adopt(&learner, Progress::Lives, now);
            }
        }
    }

    /// Whose turn it is.
    pub(crate) fn first_waiting(&self) -> Option<&LearnerId> {
        self.waiting.first_key_value().map(|(_, learner)| learner)
    }

    /// One that was let in finds nothing to start in: it stands in the line again, and is not let in before that time.
    pub(crate) fn later(&mut self, learner: &LearnerId, at: Timestamp) {
        self.gone(learner);
        self.ask(learner, at);
    }

    /// Counts one that lives already, whoever let it in.
    pub(crate) fn adopt(&mut self, learner: &LearnerId, progress: Progress, now: Timestamp) {
        let before = self.living.get(learner).copied();
        let begins = progress.starts() && before.is_none_or(|place| !place.progress.starts());
        if begins {
            self.starts.push_back((now, learner.clone()));
        }
        let since = before.filter(|_| !begins).map_or(now, |place| place.since);
        self.living
            .insert(learner.clone(), Place { progress, since });
        self.count(before, Some(progress));
    }

    fn count(&mut self, before: Option<Place>, after: Option<Progress>) {
        let before = before.map(|place| place.progress);
        let starts = |progress: Option<Progress>| progress.is_some_and(Progress::starts);
        let hurries = |progress| progress == Some(Progress::Hurries);
        self.starting += usize::from(starts(after));
        self.starting -= usize::from(starts(before));
        self.hurrying += usize::from(hurries(after));
        self.hurrying -= usize::from(hurries(before));
    }

    /// Whether one was let in.
    pub(crate) fn is_in(&self, learner: &LearnerId) -> bool {
        self.living.contains_key(learner)
    }

    /// How far one is who was let in; nothing for whoever was not.
    pub(crate) fn goes_on(&mut self, learner: &LearnerId, progress: Progress, now: Timestamp) {
        if self.living.contains_key(learner) {
            self.adopt(learner, progress, now);
        }
    }

    /// It neither lives nor waits any more.
    pub(crate) fn gone(&mut self, learner: &LearnerId) {
        let before = self.living.remove(learner);
        self.count(before, None);
        if let Some(place) = self.places.remove(learner) {
            self.waiting.remove(&place);
        }
    }

    /// How many stand in the line.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether one of those waits for a pod: in the line, or let in and not told of one yet.
    pub(crate) fn anybody_waits(&self, is_one: impl Fn(&LearnerId) -> bool) -> bool {
        let hurry = |(_, place): &(_, &Place)| place.progress == Progress::Hurries;
        let hurrying = self.living.iter().filter(hurry).map(|(learner, _)| learner);
        self.waiting.values().chain(hurrying).any(is_one)
    }

    /// How many wait while all places of the living are taken.
    pub(crate) fn wanting_room(&self) -> usize {
        if self.living.len() >= self.budget.live as usize {
            self.waiting.len()
        } else {
            0
        }
    }

    /// How many were let in, are not ready yet, and do not wait for their pod.
    pub(crate) fn hurrying(&self) -> usize {
        self.hurrying
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> LearnerId {
        name.parse().unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_783_591_200_000 + millis).unwrap()
    }

    fn gate(live: u32, starting: u32, per_second: u32) -> Gate {
        Gate::new(Budget {
            live,
            starting,
            per_second,
        })
    }

    #[test]
    fn at_the_cap_the_next_waits_until_one_has_gone() {
        let mut gate = gate(1, 5, 1000);
        gate.ask(&id("ada"), at(0));
        gate.ask(&id("bob"), at(1));
        assert_eq!(gate.admit(at(2)).0, [id("ada")]);
        gate.goes_on(&id("ada"), Progress::Lives, at(3));
        assert_eq!((gate.admit(at(90_000)).0, gate.wanting_room()), (vec![], 1));
        gate.gone(&id("ada"));
        assert_eq!(gate.admit(at(90_001)).0, [id("bob")]);
        assert_eq!(gate.wanting_room(), 0);
    }

    #[test]
    fn so_many_start_at_once_and_the_oldest_first() {
        let mut gate = gate(10, 2, 1000);
        for (name, time) in [("cyd", 3), ("ada", 1), ("bob", 2)] {
            gate.ask(&id(name), at(time));
        }
        assert_eq!(gate.admit(at(100)).0, [id("ada"), id("bob")]);
        gate.goes_on(&id("bob"), Progress::Lives, at(100));
        gate.goes_on(&id("bob"), Progress::Lives, at(100));
        assert_eq!(gate.admit(at(101)).0, [id("cyd")]);
        assert_eq!(gate.starting, 2);
    }

    #[test]
    fn whoever_waits_for_a_pod_to_start_is_in_no_hurry_and_starts_still() {
        let mut gate = gate(10, 1, 1000);
        gate.ask(&id("ada"), at(0));
        gate.ask(&id("bob"), at(0));
        assert_eq!(gate.admit(at(0)).0, [id("ada")]);
        assert_eq!(gate.hurrying(), 1);
        gate.goes_on(&id("ada"), Progress::Waits, at(0));
        assert_eq!(gate.hurrying(), 0);
        assert_eq!(gate.admit(at(1)).0, [], "one at once");
        gate.goes_on(&id("ada"), Progress::Lives, at(1));
        assert_eq!(gate.admit(at(1)).0, [id("bob")]);
        gate.gone(&id("bob"));
        assert_eq!((gate.starting, gate.hurrying()), (0, 0));
    }

    #[test]
    fn whoever_starts_slowly_lives_on_and_holds_up_nobody() {
        let within = i64::try_from(STARTS_WITHIN.as_millis()).unwrap();
        let mut gate = gate(3, 1, 1000);
        for (name, time) in [("ada", 0), ("bob", 1), ("cyd", 2), ("dan", 3)] {
            gate.ask(&id(name), at(time));
        }
        assert_eq!(gate.admit(at(5)).0, [id("ada")]);
        gate.goes_on(&id("ada"), Progress::Waits, at(5000));
        let again = Some(at(5 + within));
        assert_eq!(gate.admit(at(4 + within)), (vec![], again));
        assert_eq!(gate.admit(at(5 + within)).0, [id("bob")]);
        assert_eq!((gate.starting, gate.is_in(&id("ada"))), (1, true));
        // What has begun anew is not what began before.
        gate.gone(&id("bob"));
        assert_eq!(gate.admit(at(6 + within)).0, [id("cyd")]);
        gate.goes_on(&id("ada"), Progress::Waits, at(7 + within));
        gate.goes_on(&id("cyd"), Progress::Lives, at(7 + within));
        assert_eq!(
            gate.admit(at(6 + 2 * within)),
            (vec![], Some(at(7 + 2 * within)))
        );
        assert_eq!(gate.admit(at(7 + 2 * within)).0, [id("dan")]);
        assert_eq!(
            (gate.living.len(), gate.starting, gate.starts.len()),
            (3, 1, 1)
        );
    }

    #[test]
    fn starts_are_spread_over_the_second_and_an_idle_one_is_made_up_for() {
        let mut gate = gate(100, 100, 10);
        for number in 0..40 {
            gate.ask(&id(&format!("l{number}")), at(0));
        }
        let (first, next) = gate.admit(at(0));
        assert_eq!(first.len(), 11, "a second's worth, and the one of now");
        assert_eq!(next, Some(at(100)));
        assert_eq!(gate.admit(at(99)).0, []);
        assert_eq!(gate.admit(at(300)).0.len(), 3);
    }

    #[test]
    fn whoever_finds_nothing_to_start_in_keeps_nobody_else_from_starting() {
        let mut gate = gate(5, 5, 1000);
        gate.ask(&id("ada"), at(0));
        assert_eq!(gate.admit(at(1)).0, [id("ada")]);
        gate.ask(&id("bob"), at(2));
        gate.later(&id("ada"), at(5000));
        assert_eq!((gate.starting, gate.is_in(&id("ada"))), (0, false));
        assert_eq!(gate.admit(at(3)), (vec![id("bob")], Some(at(5000))));
        assert_eq!(gate.admit(at(4999)), (vec![], Some(at(5000))));
        assert_eq!(gate.admit(at(5000)), (vec![id("ada")], None));
    }

    #[test]
    fn whoever_goes_from_the_line_is_not_let_in() {
        let mut gate = gate(1, 1, 10);
        gate.ask(&id("ada"), at(0));
        gate.gone(&id("ada"));
        gate.ask(&id("bob"), at(5));
        assert_eq!(gate.admit(at(6)).0, [id("bob")]);
        gate.adopt(&id("bob"), Progress::Lives, at(6));
        assert_eq!(gate.starting, 0);
    }
}
