//! How far a trial has come, as its checkpoint tells.

use super::outcome::Outcome;
use serde::{Deserialize, Serialize};

/// How far a trial has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates made.
    pub step: u64,
    /// Whether the evaluation that is due after them, if one is, has been made.
    pub evaluated: bool,
    /// Bytes of `metrics.jsonl` that were written until then.
    pub metrics_len: u64,
    /// Their SHA-256.
    pub metrics_sha256: Option<String>,
    /// What was measured until then.
    pub outcome: Outcome,
}
