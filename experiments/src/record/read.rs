//! Reads records back, and holds them against each other.

use super::agreement;
use super::{
    checksum,
    files::read_json,
    metric::Metric,
    metrics_file::{parse_metrics, read_packed},
    run::Run,
    summary::Summary,
    trial::TrialRecord,
};
use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use std::path::Path;

impl TrialRecord {
    /// Reads `trial.json` and `metrics.jsonl` in the folder of a trial that has ended.
    ///
    /// # Errors
    /// When a file is missing or damaged, they contradict each other, or they are of another trial than the folder.
    pub fn read(folder: &Path) -> Result<(Self, Vec<Metric>)> {
        let record: Self = read_json(&folder.join("trial.json"))?;
        let path = folder.join("metrics.jsonl");
        let bytes = read_packed(&path)?;
        let metrics = parse_metrics(&path, &bytes)?;
        agreement::check_trial(folder, &record, &metrics, &checksum::hex(Sha256::new_with_prefix(&bytes)))?;
        Ok((record, metrics))
    }
}

impl Run {
    /// Reads the records in `out`. The statistics of the groups are those of the trials, computed anew.
    ///
    /// # Errors
    /// When a file is missing or damaged, the run has not finished, or files contradict each other.
    pub fn read(out: &Path) -> Result<Self> {
        let summary = out.join("summary.json");
        if !summary.exists() {
            bail!("`{}` has no summary.json: no run finished there", out.display());
        }
        let summary: Summary = read_json(&summary)?;
        let trials = summary.trials.iter().chain(&summary.tuning);
        let trials = trials.map(|trial| TrialRecord::read(&out.join("trials").join(&trial.id)));
        let mut run = Self {
            out: out.to_owned(),
            experiment: read_json(&out.join("experiment.json"))?,
            trials: trials.collect::<Result<_>>()?,
            summary,
        };
        agreement::check_run(&run)?;
        let Summary { groups, trials, .. } = &mut run.summary;
        *groups = groups.iter().map(|group| group.clone().measure(trials)).collect();
        Ok(run)
    }
}
