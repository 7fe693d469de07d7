//! Learners counted, where the store knows of each class and state how many of those that are ready have a turn that runs.

use std::collections::BTreeMap;

use super::column::{Impossible, count, parsed};
use crate::learners::Counted;

/// Class, state, how many, and how many of them are busy.
pub type Row = (String, String, i64, i64);

/// The census, by class and state; those that nobody is in are left out.
///
/// # Errors
/// When a class or state is none.
pub fn census(rows: &[Row]) -> Result<Vec<Counted>, Impossible> {
    let mut census = BTreeMap::new();
    for (class, state, all, busy) in rows {
        for (state, learners) in [(state.as_str(), all - busy), ("Busy", *busy)] {
            *census.entry((class, state)).or_default() += learners;
        }
    }
    let some = census.into_iter().filter(|(_, learners)| *learners > 0);
    some.map(|((class, state), learners): ((&String, &str), i64)| {
        Ok(Counted {
            class: parsed(class)?,
            state: parsed(state)?,
            learners: count(learners),
        })
    })
    .collect()
}
