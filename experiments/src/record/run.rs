//! All records of a run.

use super::{experiment::ExperimentRecord, metric::Metric, summary::Summary, trial::TrialRecord};
use std::path::PathBuf;

/// All records of a finished run: what a report is made from.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub out: PathBuf,
    /// `experiment.json`.
    pub experiment: ExperimentRecord,
    /// `summary.json`.
    pub summary: Summary,
    /// `trial.json` and `metrics.jsonl` of each trial that the summary names: the final ones, then those of tuning.
    pub trials: Vec<(TrialRecord, Vec<Metric>)>,
}
