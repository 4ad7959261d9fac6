//! Which schedule serves this problem? Trains with each of them on equal terms and compares.

use anyhow::Result;
use experiments::{Choice, Compared, GroupConfig, Study};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Study {
        name: "schedules",
        about: "Compare schedules of the learning rate: same model, optimizer, data order and seeds",
        examples: &[
            ("", "compare four schedules on digits, in seconds"),
            ("--schedule cosine --schedule wsd:warmup=100", "compare these two"),
            ("--schedule 'wsd:warmup=50|100' --opt 'adamw:lr=1e-3|3e-3'", "compare all pairs of these values"),
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

fn groups(compared: &Compared) -> Result<Vec<GroupConfig>> {
    let pairs = compared.optimizers.iter().flat_map(|optimizer| compared.schedules.iter().map(move |s| (optimizer, s)));
    let group = |(optimizer, schedule): (&Choice, &Choice)| {
        let mut group = compared.group(&optimizer.text, &schedule.text);
        group.choose(Some("schedule"), schedule)?;
        group.choose(compared.optimizer_factor(), optimizer)?;
        Ok(group)
    };
    pairs.map(group).collect()
}
