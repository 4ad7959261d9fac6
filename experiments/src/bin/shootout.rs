//! Which optimizer serves this problem? Trains with each of them on equal terms and compares.

use anyhow::{Result, bail};
use experiments::{Comparison, GroupConfig, Settings};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Comparison {
        name: "shootout",
        about: "Compare optimizers on a problem: each trains with the same seeds, and statistics tell them apart",
        dataset: "digits",
        model: None,
        optimizers: &["sgd:lr=0.05,momentum=0.9", "adam:lr=2e-3", "adamw:lr=2e-3"],
        schedules: &["cosine"],
        norm: None,
        peaks: &[],
        steps: None,
        own: &["--tune", "--space"],
        probe: false,
        groups,
    })
}

fn groups(settings: &Settings, dataset: &str, model: &str) -> Result<Vec<GroupConfig>> {
    let [schedule] = settings.schedule.as_slice() else {
        bail!("shootout compares optimizers: give one --schedule, or compare schedules with `schedules`");
    };
    let name = |optimizer: &String| if settings.tune.is_some() { untuned(optimizer) } else { optimizer.clone() };
    let group = |optimizer: &String| GroupConfig {
        name: name(optimizer),
        dataset: dataset.to_owned(),
        model: model.to_owned(),
        optimizer: optimizer.clone(),
        schedule: schedule.clone(),
        factors: [("optimizer".to_owned(), name(optimizer))].into(),
    };
    Ok(settings.opt.iter().map(group).collect())
}

/// An optimizer's text without what tuning chooses.
fn untuned(optimizer: &str) -> String {
    let (name, keys) = optimizer.split_once(':').unwrap_or((optimizer, ""));
    let is_tuned = |pair: &&str| ["lr", "weight_decay"].contains(&pair.split('=').next().unwrap_or_default().trim());
    let kept: Vec<&str> = keys.split(',').filter(|pair| !pair.is_empty() && !is_tuned(pair)).collect();
    if kept.is_empty() { name.to_owned() } else { format!("{name}:{}", kept.join(",")) }
}
