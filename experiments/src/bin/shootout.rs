//! Which optimizer serves this problem? Trains with each of them on equal terms and compares.

use anyhow::{Result, bail};
use experiments::{First, GroupConfig, Settings, Study};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Study {
        name: "shootout",
        about: "Compare optimizers on a problem: each trains with the same seeds, and statistics tell them apart",
        examples: &[
            ("", "tune and compare five optimizers on digits, in a minute"),
            ("--opt adamw:lr=1e-3 --opt lion:lr=1e-4 --seeds 5", "compare these two, with five seeds"),
            ("--tune 8 --opt sgd:momentum=0.9 --opt adamw", "find good learning rates first, then compare"),
            ("--dataset cifar10 --data-dir DIR --epochs 10", "the same on photographs"),
            ("--out runs/a --resume", "finish a run that was stopped"),
        ],
        dataset: "digits",
        model: None,
        optimizers: &["sgd:lr=0.05,momentum=0.9", "adam:lr=2e-3", "adamw:lr=2e-3"],
        first: Some(First { optimizers: &["sgd:momentum=0.9", "adamw", "lion", "lamb", "muon"], tune: 16, seeds: 10 }),
        schedules: &["cosine"],
        norm: None,
        peaks: &[],
        steps: None,
        own: &["--tune", "--tune-steps", "--space"],
        probe: false,
        groups,
    })
}

fn groups(settings: &Settings, dataset: &str, model: &str) -> Result<Vec<GroupConfig>> {
    let [schedule] = settings.schedule.as_slice() else {
        bail!("shootout compares optimizers: give one --schedule, or compare schedules with `schedules`");
    };
    let group = |optimizer: &String| GroupConfig {
        name: optimizer.clone(),
        dataset: dataset.to_owned(),
        model: model.to_owned(),
        optimizer: optimizer.clone(),
        schedule: schedule.clone(),
        factors: [("optimizer".to_owned(), optimizer.clone())].into(),
    };
    Ok(settings.opt.iter().map(group).collect())
}
