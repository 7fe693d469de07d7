//! Which turns' effects a generation holds, and what is lost when an older one is taken: pure.

use std::collections::{BTreeMap, BTreeSet};

use carrel_core::Generation;

use super::column::{Impossible, int, parsed_option};
use crate::heads::Head;

/// A generation as its lineage needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The head it followed.
    pub parent: i64,
    /// The generation whose state it took, when it is not its parent's state with something added.
    pub copy_of: Option<i64>,
    /// The turn that it ended.
    pub turn: Option<i64>,
}

/// A learner's generations, as a choice among them needs it.
#[derive(Debug, Default)]
pub struct History {
    links: BTreeMap<i64, Link>,
    /// Those that can be taken, with their snapshots.
    intact: BTreeMap<i64, Option<String>>,
}

/// What taking an older generation does to turns.
#[derive(Debug, PartialEq, Eq)]
pub struct Loss {
    /// Turns that are lost, in order: the agent is told of them with its next turn.
    pub lost: Vec<i64>,
    /// Turns that were lost before and are there again.
    pub regained: Vec<i64>,
    /// Turns that were lost before and must be told again: the turn with which they were told is lost, too.
    pub told_in_vain: Vec<i64>,
}

impl History {
    /// Adds a generation; `is_gone` when it is damaged or expired.
    pub fn add(&mut self, generation: i64, link: Link, snapshot: Option<String>, is_gone: bool) {
        self.links.insert(generation, link);
        if !is_gone {
            self.intact.insert(generation, snapshot);
        }
    }

    /// The head after `from` with the state of `to`; generation 0 is the empty workspace. `None`: `to` cannot be taken.
    ///
    /// # Errors
    /// When a snapshot's id is none.
    pub fn head(&self, from: Generation, to: Generation) -> Result<Option<Head>, Impossible> {
        let generation = from.next();
        let snapshot = match self.intact.get(&int(to.0)) {
            Some(snapshot) => parsed_option(snapshot.as_deref())?,
            None if to == Generation(0) => None,
            None => return Ok(None),
        };
        Ok(Some(Head {
            generation,
            snapshot,
        }))
    }

    /// What is lost when the state of `to` takes the place of `from`, given each turn lost before with the generation that is
    /// certain to have told of it.
    pub fn loss(&self, from: Generation, to: Generation, before: &[(i64, Option<i64>)]) -> Loss {
        let kept = turns_in(&self.links, int(to.0));
        let kept_generations = lineage(&self.links, int(to.0));
        let is_vain = |told: i64| !kept_generations.contains(&told);
        let places = |chosen: &dyn Fn(i64, Option<i64>) -> bool| {
            let chosen = before.iter().filter(|(place, told)| chosen(*place, *told));
            chosen.map(|(place, _)| *place).collect()
        };
        let lost = turns_in(&self.links, int(from.0));
        Loss {
            lost: lost.difference(&kept).copied().collect(),
            regained: places(&|place, _| kept.contains(&place)),
            told_in_vain: places(&|place, told| {
                !kept.contains(&place) && told.is_some_and(is_vain)
            }),
        }
    }
}

/// The generations whose effects `generation` holds, itself included. 0 holds nothing.
fn lineage(history: &BTreeMap<i64, Link>, generation: i64) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    let mut at = generation;
    while let Some(link) = history.get(&at)
        && found.insert(at)
    {
        at = link.copy_of.unwrap_or(link.parent);
    }
    found
}

/// The turns whose effects `generation` holds.
fn turns_in(history: &BTreeMap<i64, Link>, generation: i64) -> BTreeSet<i64> {
    lineage(history, generation)
        .iter()
        .filter_map(|generation| history.get(generation)?.turn)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 ← 2 ← 3 ← 4, then 5 took the state of 2, and 6 followed; generation n ended turn 10 n, but 5 ended none.
    fn history() -> BTreeMap<i64, Link> {
        let ended = |generation: i64| Link {
            parent: generation - 1,
            copy_of: None,
            turn: Some(10 * generation),
        };
        let copy = Link {
            parent: 4,
            copy_of: Some(2),
            turn: None,
        };
        let mut history: BTreeMap<i64, Link> = (1..=6).map(|n| (n, ended(n))).collect();
        history.insert(5, copy);
        history
    }

    #[test]
    fn a_generation_holds_the_turns_of_those_it_came_from() {
        assert_eq!(turns_in(&history(), 4), BTreeSet::from([10, 20, 30, 40]));
        assert_eq!(turns_in(&history(), 0), BTreeSet::new());
    }

    #[test]
    fn a_generation_after_a_copy_holds_what_the_copied_one_held() {
        assert_eq!(turns_in(&history(), 6), BTreeSet::from([10, 20, 60]));
        assert_eq!(lineage(&history(), 6), BTreeSet::from([1, 2, 5, 6]));
    }

    #[test]
    fn what_an_older_state_loses_regains_and_tells_again() {
        let mut whole = History::default();
        for (generation, link) in history() {
            whole.add(generation, link, None, generation == 3);
        }
        let loss = whole.loss(
            Generation(6),
            Generation(4),
            &[
                (30, Some(5)),
                (40, None),
                (70, Some(6)),
                (80, Some(2)),
                (90, None),
            ],
        );
        let expected = Loss {
            lost: vec![60],
            regained: vec![30, 40],
            told_in_vain: vec![70],
        };
        assert_eq!(loss, expected);
        assert!(matches!(whole.head(Generation(6), Generation(3)), Ok(None)));
    }
}
