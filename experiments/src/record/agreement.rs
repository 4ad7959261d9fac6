//! Whether the records of a run agree with each other: what one file says is held against what another one does.

use super::{
    hyperparameters,
    metric::Metric,
    outcome::Outcome,
    run::Run,
    summary::{GroupSummary, TrialSummary},
    trial::TrialRecord,
};
use crate::config::{group::GroupConfig, names::number};
use anyhow::{Context, Result, bail, ensure};
use optim::text::SpecText;
use std::{collections::BTreeSet, path::Path};

/// Checks what is read from the folder of a trial that has ended; `sha256` is that of its measurements.
///
/// # Errors
/// When the trial is of another folder or config, or did not end as its measurements do.
pub fn check_trial(folder: &Path, record: &TrialRecord, metrics: &[Metric], sha256: &str) -> Result<()> {
    let file = |name: &str| folder.join(name).display().to_string();
    let (trial, measured) = (file("trial.json"), file("metrics.jsonl"));
    let id = &record.id;
    if folder.file_name().is_none_or(|name| name != id.as_str()) {
        bail!("`{trial}`: it is of the trial `{id}`");
    }
    ensure!(*id == record.config.id(), "`{trial}`: its config is not that of `{id}`");
    let outcome = record.outcome.as_ref().with_context(|| format!("`{trial}`: it has no outcome"))?;
    if record.metrics_sha256.as_ref().is_some_and(|known| known != sha256) {
        bail!("`{measured}`: it is not what `trial.json` has the checksum of: it was damaged or changed");
    }
    let Some(ended) = ended(metrics) else {
        bail!("`{measured}`: it is empty, and `trial.json` knows of {} updates", outcome.steps);
    };
    let mut before = [0; 4];
    for metric in metrics {
        let (kind, step) = match metric {
            Metric::Train { step, .. } => (0, *step),
            Metric::Eval { step, .. } => (1, *step),
            Metric::Probe { step, .. } => (2, *step),
            Metric::Ema { step, .. } => (3, *step),
        };
        ensure!(step > before[kind], "`{measured}`: step {step} comes after step {}", before[kind]);
        before[kind] = step;
    }
    let Outcome { diverged, stopped, cause, .. } = outcome.clone();
    let ended = Outcome { diverged, stopped, cause, ..ended };
    let ended = if ended.diverged || ended.stopped { ended.without_end() } else { ended };
    if let Some(differs) = difference(&ended, outcome)? {
        bail!("`{measured}` and `{trial}` disagree: {differs}");
    }
    if !outcome.diverged {
        let (steps, made) = (record.config.steps, outcome.steps);
        let agrees = if outcome.stopped { made < steps } else { made == steps };
        ensure!(agrees, "`{trial}`: it ended after {made} updates, and was to make {steps}");
        ensure!(before[1] == made, "`{measured}`: it has no evaluation after the last update");
    }
    Ok(())
}

/// How a trial ended, from its measurements alone; none where there are none.
fn ended(metrics: &[Metric]) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    for metric in metrics {
        match metric {
            Metric::Train { step, seconds, .. } => (outcome.steps, outcome.seconds) = (*step, *seconds),
            Metric::Eval { step, loss, accuracy, seconds } => {
                (outcome.steps, outcome.seconds) = (*step, *seconds);
                if loss.is_finite() {
                    outcome.measure(*loss, *accuracy);
                }
            }
            Metric::Ema { step, loss, accuracy, seconds } => {
                (outcome.steps, outcome.seconds) = (*step, *seconds);
                outcome.measure_ema(*loss, *accuracy);
            }
            Metric::Probe { step, .. } => outcome.steps = *step,
        }
    }
    (!metrics.is_empty()).then_some(outcome)
}

/// The first key in which two records of the same kind differ, with both values.
fn difference<T: serde::Serialize>(one: &T, other: &T) -> Result<Option<String>> {
    let (one, other) = (serde_json::to_value(one)?, serde_json::to_value(other)?);
    let mut fields = one.as_object().into_iter().flatten();
    let differs = fields.find(|(key, value)| other.get(key) != Some(value));
    Ok(differs.map(|(key, value)| format!("{key} is {value} and {}", other[key])))
}

/// Checks what is read from the folder of a run that has ended.
///
/// # Errors
/// When `summary.json` says other things than the trials, or than `experiment.json`.
pub fn check_run(run: &Run) -> Result<()> {
    let file = |name: &str| run.out.join(name).display().to_string();
    let (summary, experiment) = (file("summary.json"), file("experiment.json"));
    if run.summary.experiment != run.experiment.experiment {
        bail!(
            "`{summary}` and `{experiment}` disagree: experiment is {:?} and {:?}",
            run.summary.experiment,
            run.experiment.experiment
        );
    }
    let listed = run.summary.trials.iter().chain(&run.summary.tuning);
    let mut ids = BTreeSet::new();
    for (listed, (record, _)) in listed.zip(&run.trials) {
        let id = &listed.id;
        ensure!(ids.insert(id), "`{summary}`: it has the trial `{id}` twice");
        let outcome = record.outcome.as_ref().with_context(|| format!("trial `{id}` has no outcome"))?;
        let own = TrialSummary::new(id.clone(), record.group.clone(), record.config.seed, outcome);
        if let Some(differs) = difference(listed, &own)? {
            let trial = run.out.join("trials").join(id).join("trial.json");
            bail!("`{summary}` and `{}` disagree: {differs}", trial.display());
        }
        let group = run.summary.groups.iter().find(|group| group.name == record.group);
        let group =
            group.with_context(|| format!("`{summary}`: it has no group `{}` of trial `{id}`", record.group))?;
        let config = run.experiment.groups.iter().find(|config| config.name == group.name);
        let config = config.with_context(|| format!("`{experiment}`: it has no group `{}`", group.name))?;
        let is_final = run.summary.trials.iter().any(|own| own.id == *id);
        if let Some(differs) = of_another(record, group, config, is_final) {
            bail!("`{summary}`: group `{}` and its trial `{id}` disagree: {differs}", group.name);
        }
        if let Some(workload) = run.experiment.workload(group, config) {
            for (name, told, own) in [
                ("steps", workload.steps, record.config.steps),
                ("batch_size", workload.batch_size as u64, record.config.batch_size as u64),
                ("evaluate_every", workload.evaluate_every, record.config.evaluate_every),
            ] {
                // A tuning trial has fewer examples, and may make fewer updates.
                let agrees = told == own || (!is_final && name != "batch_size" && own < told);
                ensure!(agrees, "`{experiment}` and trial `{id}` disagree: {name} is {told} and {own}");
            }
        }
        if is_final && !run.experiment.seeds.contains(&listed.seed) {
            bail!("`{experiment}`: it has no seed {} of trial `{id}`", listed.seed);
        }
    }
    for group in &run.summary.groups {
        let own = group.clone().measure(&run.summary.trials);
        if (own.n, own.diverged) != (group.n, group.diverged) {
            bail!(
                "`{summary}`: group `{}` has {} trials, {} of them diverged, and its trials are {}, {}",
                group.name,
                group.n,
                group.diverged,
                own.n,
                own.diverged
            );
        }
        for (name, told, own) in [
            ("loss", group.loss.mean, own.loss.mean),
            ("accuracy", group.accuracy.mean, own.accuracy.mean),
            ("seconds", group.seconds.mean, own.seconds.mean),
        ] {
            if !is_near(told, own) {
                let text = |mean: Option<f64>| mean.map_or("none".to_owned(), |mean| mean.to_string());
                bail!(
                    "`{summary}`: group `{}` has the mean {name} {}, and its trials have {}",
                    group.name,
                    text(told),
                    text(own)
                );
            }
        }
    }
    Ok(())
}

/// Equal but for the order in which a sum was formed.
fn is_near(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= 1e-12 * one.abs().max(other.abs()),
        _ => one == other,
    }
}

/// What a trial was trained with that its group was not. The hyperparameters of tuning trials are their own.
fn of_another(record: &TrialRecord, group: &GroupSummary, config: &GroupConfig, is_final: bool) -> Option<String> {
    let trial = &record.config;
    let name = SpecText::of(&trial.optimizer).name;
    let differs = |key: &str, one: &str, other: &str| (one != other).then(|| format!("{key} is `{one}` and `{other}`"));
    // Its batch size is held against its workload.
    let clip = config.factors.get("clip").and_then(|told| {
        let own = number(trial.clip.unwrap_or(0.0));
        differs("clip", told, &own)
    });
    let told = differs("dataset", &group.dataset, &trial.dataset)
        .or_else(|| differs("dataset", &config.dataset, &trial.dataset))
        .or(clip)
        .or_else(|| differs("model", &group.model, &trial.model))
        .or_else(|| differs("optimizer", &group.optimizer, &name));
    if told.is_some() || !is_final {
        return told;
    }
    // A rule of a program before this one may have had other hyperparameters.
    let own = optim::by_name(&trial.optimizer).map(|rule| hyperparameters::of(&rule)).unwrap_or_default();
    let hyperparameter = group.hyperparameters.iter().find_map(|(key, value)| {
        let own = own.get(key).filter(|own| *own != value)?;
        Some(format!("{key} is {value} and {own}"))
    });
    differs("schedule", &group.schedule, &trial.schedule).or(hyperparameter)
}
