//! What a learner's object says of them.

use serde_json::Value;

/// The status of a learner's object.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        self.0["epoch"].as_u64().unwrap_or_default()
    }

    /// The name of its pod; empty when there is none.
    pub fn pod(&self) -> &str {
        self.0["podName"].as_str().unwrap_or_default()
    }

    /// A condition's status and reason.
    pub fn condition(&self, name: &str) -> (&str, &str) {
        (self.text(name, "status"), self.text(name, "reason"))
    }

    /// What a condition says for people.
    pub fn message(&self, name: &str) -> &str {
        self.text(name, "message")
    }

    fn text(&self, condition: &str, key: &str) -> &str {
        let conditions = self.0["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|found| found["type"] == condition);
        let text = found.and_then(|found| found[key].as_str());
        text.unwrap_or_default()
    }

    /// Whether it is ready in this epoch.
    pub fn is_ready(&self, epoch: u64) -> bool {
        self.epoch() == epoch && self.condition("Ready") == ("True", "Ready")
    }

    /// Whether it sleeps after this epoch.
    pub fn is_asleep(&self, epoch: u64) -> bool {
        self.epoch() == epoch
            && self.condition("Ready") == ("False", "Asleep")
            && self.pod().is_empty()
    }
}
