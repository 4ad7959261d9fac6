//! Which optimizer serves this problem? Trains with each of them on equal terms and compares.

use anyhow::{Result, bail};
use experiments::{Choice, Compared, First, GroupConfig, Study};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Study {
        name: "shootout",
        about: "Compare optimizers on a problem: each trains with the same seeds, and statistics tell them apart",
        examples: &[
            ("", "tune and compare five optimizers on digits, in a minute"),
            ("--opt adamw:lr=1e-3 --opt lion:lr=1e-4 --seeds 5", "compare these two, with five seeds"),
            ("--tune 8 --opt sgd:momentum=0.9 --opt adamw", "find good learning rates first, then compare"),
            ("--opt 'sgd:lr=0.05|0.1|0.2,momentum=0.9' --batch-size 16,64", "compare all pairs of these values"),
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

fn groups(compared: &Compared) -> Result<Vec<GroupConfig>> {
    let [schedule] = compared.schedules else {
        bail!("shootout compares optimizers: give one --schedule, or compare schedules with `schedules`");
    };
    let group = |optimizer: &Choice| {
        let mut group = compared.group(&optimizer.text, &schedule.text);
        group.choose(Some("optimizer"), optimizer)?;
        Ok(group)
    };
    compared.optimizers.iter().map(group).collect()
}
