//! A trial: one group with one seed.

use super::workload::LoadedWorkload;
use crate::record::trial::TrialRecord;
use optim::{AnyRule, Schedule};
use std::collections::HashSet;

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

/// Gives `trials` ids of their own, also where they are equal to each other, or to trials of these ids: two groups may come to the same
/// hyperparameters.
pub fn make_distinct<'a>(trials: &mut [Trial], known: impl Iterator<Item = &'a str>) {
    let mut ids: HashSet<String> = known.map(str::to_owned).collect();
    for trial in trials {
        let record = &mut trial.record;
        let mut before = 0;
        while !ids.insert(record.id.clone()) {
            before += 1;
            record.config.repeat = Some(before);
            record.id = record.config.id();
        }
    }
}
