//! A run that has not ended, as far as it is.

use super::{
    experiment::ExperimentRecord,
    hyperparameters,
    metric::Metric,
    run::Run,
    summary::{GroupSummary, Summary, TrialSummary},
    trial::{Phase, TrialRecord},
    workload::Workload,
};
use crate::{config::group::GroupConfig, stats::Estimate};
use anyhow::{Context, Result};
use optim::{Rule, text::SpecText};
use std::path::Path;

impl Run {
    /// The run of `experiment` in `out` as far as `trials` tell, which have ended. Groups without a trial are left out; while no trial that is
    /// compared has ended, the groups are those of tuning, each with what its best trial so far has.
    ///
    /// # Errors
    /// When a trial has no outcome.
    pub fn so_far(
        out: &Path,
        experiment: ExperimentRecord,
        mut trials: Vec<(TrialRecord, Vec<Metric>)>,
    ) -> Result<Self> {
        let place = |record: &TrialRecord| experiment.groups.iter().position(|group| group.name == record.group);
        // As a run that has ended has them, in whatever order they ended.
        trials.sort_by_key(|(record, _)| {
            let seed = record.config.seed;
            (record.config.phase == Phase::Tune, seed, place(record), record.id.clone())
        });
        let summary = |record: &TrialRecord| {
            let outcome = record.outcome.as_ref().with_context(|| format!("trial `{}` has no outcome", record.id))?;
            Ok(TrialSummary::new(record.id.clone(), record.group.clone(), record.config.seed, outcome))
        };
        let all = trials.iter().map(|(record, _)| summary(record)).collect::<Result<Vec<_>>>()?;
        let (finals, tuning) = all.split_at(trials.partition_point(|(record, _)| record.config.phase == Phase::Final));
        let shown = if finals.is_empty() { tuning } else { finals };
        let group = |config: &GroupConfig| {
            let own = shown.iter().filter(|summary| summary.group == config.name);
            let loss = |summary: &TrialSummary| summary.final_loss.unwrap_or(f64::INFINITY);
            let best = own.min_by(|a, b| loss(a).total_cmp(&loss(b)))?;
            let (record, _) = trials.iter().find(|(record, _)| record.id == best.id)?;
            Some(group_of(record).measure(finals))
        };
        let groups: Vec<GroupSummary> = experiment.groups.iter().filter_map(group).collect();
        let of_shown = |summaries: &[TrialSummary]| {
            let is_shown = |summary: &&TrialSummary| groups.iter().any(|group| group.name == summary.group);
            summaries.iter().filter(is_shown).cloned().collect()
        };
        let summary = Summary {
            experiment: experiment.experiment.clone(),
            dataset: names(&experiment.workloads, |workload| &workload.dataset),
            model: names(&experiment.workloads, |workload| &workload.model),
            trials: of_shown(finals),
            tuning: of_shown(tuning),
            groups,
            peak_memory_bytes: None,
        };
        Ok(Self { out: out.to_owned(), experiment, summary, trials })
    }
}

/// The group of a trial, without statistics.
fn group_of(record: &TrialRecord) -> GroupSummary {
    let (config, none) = (&record.config, Estimate::of(&[]));
    let rule = optim::by_name(&config.optimizer);
    GroupSummary {
        name: record.group.clone(),
        dataset: config.dataset.clone(),
        model: config.model.clone(),
        optimizer: rule
            .as_ref()
            .map_or_else(|_| SpecText::of(&config.optimizer).name, |rule| rule.spec().name.to_owned()),
        schedule: config.schedule.clone(),
        hyperparameters: rule.map(|rule| hyperparameters::of(&rule)).unwrap_or_default(),
        searched: None,
        n: 0,
        median_loss: None,
        loss: none,
        accuracy: none,
        ema_loss: None,
        ema_accuracy: None,
        seconds: none,
        diverged: 0,
    }
}

/// What the workloads are called, each name once.
fn names(workloads: &[Workload], of: fn(&Workload) -> &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for workload in workloads {
        if !names.contains(&of(workload)) {
            names.push(of(workload));
        }
    }
    names.join(", ")
}
