//! Which schedule serves this problem? Trains with each of them on equal terms and compares.

use anyhow::Result;
use experiments::{GroupConfig, Settings, Study};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Study {
        name: "schedules",
        about: "Compare schedules of the learning rate: same model, optimizer, data order and seeds",
        examples: &[
            ("", "compare four schedules on digits, in seconds"),
            ("--schedule cosine --schedule wsd:warmup=100", "compare these two"),
            ("--opt sgd:lr=0.1,momentum=0.9 --tune 8", "find a good learning rate for each schedule first"),
            ("--out runs/a --resume", "finish a run that was stopped"),
        ],
        dataset: "digits",
        model: None,
        optimizers: &["adamw:lr=2e-3"],
        first: None,
        schedules: &["constant", "step", "cosine", "warmup_cosine"],
        norm: None,
        peaks: &[],
        steps: None,
        own: &["--tune", "--tune-steps", "--space"],
        probe: false,
        groups,
    })
}

fn groups(settings: &Settings, dataset: &str, model: &str) -> Result<Vec<GroupConfig>> {
    let pairs = settings.opt.iter().flat_map(|optimizer| settings.schedule.iter().map(move |s| (optimizer, s)));
    let group = |(optimizer, schedule): (&String, &String)| {
        let several = settings.opt.len() > 1;
        let mut group = GroupConfig {
            name: if several { format!("{schedule}, {optimizer}") } else { schedule.clone() },
            dataset: dataset.to_owned(),
            model: model.to_owned(),
            optimizer: optimizer.clone(),
            schedule: schedule.clone(),
            factors: [("schedule".to_owned(), schedule.clone())].into(),
        };
        if several {
            group.factors.insert("optimizer".to_owned(), optimizer.clone());
        }
        group
    };
    Ok(pairs.map(group).collect())
}
