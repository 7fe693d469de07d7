//! Values of labels: words of closed enums, never a learner's.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// The word of a closed enum as a label's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(&'static str);

impl Word {
    /// The word that a value is called by.
    pub fn of(value: impl Into<&'static str>) -> Self {
        Self(value.into())
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// What something came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByResult {
    /// What it came to.
    pub result: Word,
}

impl ByResult {
    /// By this result.
    pub fn of(result: impl Into<&'static str>) -> Self {
        Self {
            result: Word::of(result),
        }
    }
}

/// A part of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByKind {
    /// Which part.
    pub kind: Word,
}

impl ByKind {
    /// By this kind.
    pub fn of(kind: impl Into<&'static str>) -> Self {
        Self {
            kind: Word::of(kind),
        }
    }
}
