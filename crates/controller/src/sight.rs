//! Which watches show what they should just now: whoever has never seen all assigns nothing, and one that is blind says so.

use std::collections::{BTreeMap, BTreeSet};

use carrel_telemetry::Readiness;
use tokio::sync::watch;

/// What `/readyz` and the metrics call it.
const WATCHES: &str = "watches";

/// Which watches show nothing just now, and why.
#[derive(Clone)]
pub(crate) struct Sight {
    /// Those that have never listed everything.
    unlisted: watch::Sender<BTreeSet<String>>,
    blind: watch::Sender<BTreeMap<String, String>>,
    readiness: Readiness,
}

impl Sight {
    /// None of these watches has listed everything yet.
    pub(crate) fn new(readiness: Readiness, watches: impl IntoIterator<Item = String>) -> Self {
        let why = || "the list is not complete yet".to_owned();
        let watches: BTreeMap<_, _> = watches.into_iter().map(|what| (what, why())).collect();
        let sight = Self {
            unlisted: watch::Sender::new(watches.keys().cloned().collect()),
            blind: watch::Sender::default(),
            readiness,
        };
        sight.change(|blind| *blind = watches);
        sight
    }

    /// A watch has listed everything, and goes on from there.
    pub(crate) fn sees(&self, what: &str) {
        self.change(|blind| drop(blind.remove(what)));
        self.unlisted.send_modify(|unlisted| {
            unlisted.remove(what);
        });
    }

    /// A watch broke.
    pub(crate) fn loses(&self, what: &str, why: String) {
        self.readiness.stumbled(WATCHES);
        self.change(|blind| drop(blind.insert(what.to_owned(), why)));
    }

    /// Waits until all have listed everything, be it that one has broken since: it goes on from there.
    pub(crate) async fn complete(&self) {
        // The sender lives as long as this.
        let _ = self.unlisted.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    /// Whether all show what they should just now.
    pub(crate) fn is_clear(&self) -> bool {
        self.blind.borrow().is_empty()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        self.blind.send_modify(|blind| {
            change(blind);
            let lines: Vec<_> = blind
                .iter()
                .map(|(what, why)| format!("{what} ({why})"))
                .collect();
            if lines.is_empty() {
                self.readiness.present(WATCHES);
            } else {
                self.readiness.missing(WATCHES, lines.join(", "));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_blind_says_so_until_it_has_listed_anew() {
        let readiness = Readiness::default();
        let watches = ["learners", "pods in learners-0"].map(str::to_owned);
        let sight = Sight::new(readiness.clone(), watches);
        sight.sees("learners");
        let not_yet = "pods in learners-0 (the list is not complete yet)";
        assert_eq!(readiness.list()[WATCHES], not_yet);
        sight.sees("pods in learners-0");
        sight.complete().await;
        assert!(readiness.list().is_empty() && sight.is_clear());
        sight.loses("learners", "connection refused".to_owned());
        let refused = "learners (connection refused)";
        assert_eq!(readiness.list()[WATCHES], refused);
        assert!(!sight.is_clear());
        sight.complete().await;
        sight.sees("learners");
        assert!(readiness.list().is_empty());
    }
}
