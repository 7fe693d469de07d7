//! When two commits are equal.

use sha2::{Digest, Sha256};

use super::column::{Impossible, to_json};
use crate::heads::Commit;

/// SHA-256 of all that makes two commits equal; where the time went and what the operator is told do not.
///
/// # Errors
/// Never for the port's types; `serde_json` says so only at run time.
pub fn digest(commit: &Commit) -> Result<Vec<u8>, Impossible> {
    let mut hash = Sha256::new();
    let turn = commit.turn.as_ref();
    let result = turn.map(|turn| (turn.turn_id, turn.stopped, &turn.reply));
    let fixed = (
        commit.epoch,
        commit.generation,
        &commit.parent,
        &commit.snapshot,
        result,
    );
    hash.update(to_json(&fixed)?);
    for file in turn.map_or(&[][..], |turn| &turn.files) {
        hash.update(to_json(&(&file.name, &file.media_type, file.data.len()))?);
        hash.update(&file.data);
    }
    Ok(hash.finalize().to_vec())
}
