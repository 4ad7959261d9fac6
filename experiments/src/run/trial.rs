//! A trial: one group with one seed.

use super::workload::LoadedWorkload;
use crate::record::trial::TrialRecord;
use optim::{AnyRule, Schedule};

/// A trial that is to be run.
pub struct Trial<'a> {
    /// What it trains on.
    pub workload: &'a LoadedWorkload,
    /// The index of its group.
    pub group: usize,
    /// What it is called on the console.
    pub name: String,
    /// What tuning tries by it, for the console.
    pub tried: String,
    /// Its optimizer.
    pub rule: AnyRule,
    /// The schedule of its learning rate.
    pub schedule: Schedule,
    /// As it is written.
    pub record: TrialRecord,
}
