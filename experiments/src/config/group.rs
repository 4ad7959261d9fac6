//! A group: one of the things that are compared.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of the things that are compared, as text that users write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its name in tables and pictures; no two are the same.
    pub name: String,
    /// The data set, as in `--dataset`.
    pub dataset: String,
    /// The model, as in `--model`.
    pub model: String,
    /// The optimizer, as in `--opt`; with `--tune`, before tuning.
    pub optimizer: String,
    /// The schedule of its learning rate, as in `--schedule`.
    pub schedule: String,
    /// What sets it apart from other groups, by the name of the aspect: `optimizer`, `schedule`, `warmup` (`yes` or `no`),
    /// `peak` (the largest learning rate), `norm` (`pre` or `post`), `dataset`, `model`. Only what is compared is here.
    pub factors: BTreeMap<String, String>,
}
