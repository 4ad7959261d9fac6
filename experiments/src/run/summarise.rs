//! From outcomes to `summary.json`.

use super::{
    memory, optimizer,
    plan::{Group, Plan},
    space::Space,
    trial::Trial,
};
use crate::{
    config::study::Study,
    record::{
        hyperparameters,
        outcome::Outcome,
        summary::{GroupSummary, Summary, TrialSummary},
        trial::TrialRecord,
        workload::Workload,
    },
    stats::Estimate,
};
use anyhow::Result;
use optim::{AnyRule, Rule};

/// The summary of the run of `study` as `plan` has it, whose groups ended up with `rules`, of what `spaces` have; with tuning trials and final ones, and how
/// each ended.
///
/// # Errors
/// A schedule that does not fit its rule, which the plan rules out.
pub fn summarise(
    study: &Study,
    plan: &Plan,
    (rules, spaces): (&[AnyRule], &[Space]),
    tuning: (&[Trial], &[Outcome]),
    finals: (&[Trial], &[Outcome]),
) -> Result<Summary> {
    let summaries = |(trials, outcomes): (&[Trial], &[Outcome])| -> Vec<TrialSummary> {
        let summary = |(trial, outcome): (&Trial, &Outcome)| {
            let TrialRecord { id, group, config, .. } = &trial.record;
            TrialSummary::new(id.clone(), group.clone(), config.seed, outcome)
        };
        trials.iter().zip(outcomes).map(summary).collect()
    };
    let trials = summaries(finals);
    let none = Estimate::of(&[]);
    let group = |((group, rule), space): ((&Group, &AnyRule), &Space)| {
        let workload = &plan.workloads[group.workload].record;
        let schedule = optimizer::parse_schedule(&group.config.schedule, rule, workload.steps)?;
        let summary = GroupSummary {
            name: group.config.name.clone(),
            dataset: workload.dataset.clone(),
            model: workload.model.clone(),
            optimizer: rule.spec().name.to_owned(),
            schedule: schedule.to_string(),
            hyperparameters: hyperparameters::of(rule),
            searched: (!tuning.0.is_empty()).then(|| space.searched(rule)),
            n: 0,
            median_loss: None,
            loss: none,
            accuracy: none,
            ema_loss: None,
            ema_accuracy: None,
            seconds: none,
            diverged: 0,
        };
        Ok(summary.measure(&trials))
    };
    let names = |of: fn(&Workload) -> &str| {
        let mut names: Vec<&str> = Vec::new();
        for workload in &plan.workloads {
            if !names.contains(&of(&workload.record)) {
                names.push(of(&workload.record));
            }
        }
        names.join(", ")
    };
    Ok(Summary {
        experiment: study.name.to_owned(),
        dataset: names(|workload| &workload.dataset),
        model: names(|workload| &workload.model),
        groups: plan.groups.iter().zip(rules).zip(spaces).map(group).collect::<Result<_>>()?,
        tuning: summaries(tuning),
        trials,
        peak_memory_bytes: memory::peak(),
    })
}
