//! A sidecar's last word: a line that whoever made the pod finds when the pod is over, though nobody was listening then.
//!
//! On Kubernetes it is the termination message of the sidecar's container, of which the kubelet keeps 4 KiB in the pod's status.

use carrel_core::lifecycle::Ending;
use carrel_core::{Epoch, SnapshotId};
use serde::{Deserialize, Serialize};

/// How a pod ended, by its own account. What another version says besides is ignored, and what it does not say is as if
/// nothing had happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// How.
    pub ending: Ending,
    /// Whether it committed anything in its life.
    #[serde(default)]
    pub committed: bool,
    /// Whether it restored an older state because the newest was proved damaged.
    #[serde(default)]
    pub fell_back: bool,
    /// The learner's fence, when it was refused for being below it: the next epoch has to be above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Epoch>,
    /// The learner's newest snapshot, as far as this pod knows: the one it restored, or the last it committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Why, in a sentence for people; empty when it slept.
    #[serde(default)]
    pub reason: String,
}

impl Farewell {
    /// The most bytes of the text.
    pub const BYTES: usize = 2048;

    /// The text, of [`Self::BYTES`] at most: a reason that is too long for it is cut.
    ///
    /// # Errors
    /// None that its fields can cause.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let whole = serde_json::to_string(self)?;
        if whole.len() <= Self::BYTES {
            return Ok(whole);
        }
        let mut cut = Self {
            reason: "…".to_owned(),
            ..self.clone()
        };
        let mut left = Self::BYTES.saturating_sub(serde_json::to_string(&cut)?.len());
        let mut kept = String::new();
        for character in self.reason.chars() {
            // Its quotes are counted already; what has to be escaped takes more than it is long.
            let written = serde_json::to_string(&character)?.len() - 2;
            match left.checked_sub(written) {
                Some(rest) => left = rest,
                None => break,
            }
            kept.push(character);
        }
        cut.reason.insert_str(0, &kept);
        serde_json::to_string(&cut)
    }

    /// Reads the text; `None` when it is none, say because the sidecar was killed before it could say anything.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn farewell(reason: &str) -> Farewell {
        Farewell {
            ending: Ending::Died,
            committed: true,
            fell_back: false,
            fence: Some(Epoch(9)),
            snapshot_id: "5a".repeat(32).parse().ok(),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn what_is_said_is_read() {
        let said = farewell("a newer incarnation exists");
        let text = said.text().unwrap();
        assert!(text.contains(r#""ending":"died""#), "{text}");
        assert_eq!(Farewell::read(&format!("{text}\n")), Some(said));
    }

    #[test]
    fn a_reason_of_any_length_and_script_leaves_a_text_that_fits_and_is_read() {
        for letter in ["a", "ü", "\u{1}", "\"", "漢", "🙂"] {
            let text = farewell(&letter.repeat(3000)).text().unwrap();
            let spare = Farewell::BYTES.checked_sub(text.len());
            assert!(
                spare.is_some_and(|spare| spare < 8),
                "{letter:?}: {spare:?}"
            );
            let reason = Farewell::read(&text).unwrap().reason;
            let kept = reason.strip_suffix('…').expect("it says that it is cut");
            assert!(!kept.is_empty() && kept.chars().all(|kept| letter.contains(kept)));
        }
    }

    #[test]
    fn what_another_version_says_is_read_as_far_as_it_is_known() {
        let newer = r#"{"ending":"slept","committed":true,"mood":"rested"}"#;
        let read = Farewell::read(newer).unwrap();
        assert_eq!((read.ending, read.committed), (Ending::Slept, true));
        assert_eq!((read.fence, read.reason.as_str()), (None, ""));
        assert_eq!(Farewell::read("Killed"), None);
    }
}
