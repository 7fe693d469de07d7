//! Invariant 9, read models are folds: usage as the fold of the events, to compare a store's read model with.

use std::collections::BTreeMap;

use crate::event::{EventBody, Usage};

/// Usage by `provider/model`.
pub type UsageByModel = BTreeMap<String, Usage>;

/// The fold of the events.
pub fn usage_by_model<'a>(events: impl IntoIterator<Item = &'a EventBody>) -> UsageByModel {
    let mut usage = UsageByModel::new();
    for event in events {
        if let EventBody::Charged {
            model,
            cost,
            input_tokens,
            output_tokens,
            ..
        } = event
        {
            let row = usage.entry(model.clone()).or_default();
            row.cost_nano_usd.0 += cost.0;
            row.input_tokens += input_tokens;
            row.output_tokens += output_tokens;
        }
    }
    usage
}

/// 9: the read model equals the fold of all events.
pub fn read_models_are_folds<'a>(
    read_model: &UsageByModel,
    events: impl IntoIterator<Item = &'a EventBody>,
) -> bool {
    *read_model == usage_by_model(events)
}
