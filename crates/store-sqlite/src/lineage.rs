//! Which turns' effects a generation holds: pure.

use std::collections::{BTreeMap, BTreeSet};

/// A generation as its lineage needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The head it followed.
    pub(crate) parent: i64,
    /// The generation whose state it took, when it is not its parent's state with something added.
    pub(crate) copy_of: Option<i64>,
    /// The turn that it ended.
    pub(crate) turn: Option<i64>,
}

/// The generations whose effects `generation` holds, itself included. 0 holds nothing.
pub(crate) fn lineage(history: &BTreeMap<i64, Link>, generation: i64) -> BTreeSet<i64> {
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
pub(crate) fn turns_in(history: &BTreeMap<i64, Link>, generation: i64) -> BTreeSet<i64> {
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
}
