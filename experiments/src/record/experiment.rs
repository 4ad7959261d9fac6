//! `experiment.json`: what was asked for, and by which program, commit and device.

use super::{summary::GroupSummary, workload::Workload};
use crate::config::group::GroupConfig;
use serde::{Deserialize, Serialize};

/// What `experiment.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// `shootout`, `schedules` or `warmup`.
    pub experiment: String,
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// When it began.
    pub started: String,
    /// All options, as in `config.toml`.
    pub config: serde_json::Value,
    /// What groups are compared on.
    pub workloads: Vec<Workload>,
    /// What is compared.
    pub groups: Vec<GroupConfig>,
    /// The seeds of the final trials.
    pub seeds: Vec<u64>,
    /// The device.
    pub device: String,
    /// The versions of what computes.
    pub versions: Versions,
    /// The commit that the program was built from, with `-dirty` where files differed from it; none outside a repository.
    pub commit: Option<String>,
    /// The programs that went on with the run and are not the one that began it, or were told something else; none in most runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued: Vec<Continuation>,
}

impl ExperimentRecord {
    /// What the group of a summary and a config was trained on. It may have left the model to the data set; the summary knows it. Where
    /// batch sizes are compared, each has a workload.
    pub fn workload(&self, group: &GroupSummary, config: &GroupConfig) -> Option<&Workload> {
        let batch_size = config.factors.get("batch_size");
        let is_own = |workload: &&Workload| {
            workload.dataset == group.dataset
                && [&group.model, &config.model].contains(&&workload.model)
                && batch_size.is_none_or(|size| *size == workload.batch_size.to_string())
        };
        self.workloads.iter().find(is_own)
    }
}

/// A program that went on with a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continuation {
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// When it went on.
    pub started: String,
    /// The versions of what computes.
    pub versions: Versions,
    /// As [`ExperimentRecord::commit`].
    pub commit: Option<String>,
}

/// The versions of what computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// This program.
    pub experiments: String,
    /// candle.
    pub candle: String,
    /// The operating system.
    pub os: String,
    /// The processor's architecture.
    pub arch: String,
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
}
