//! Which optimizer serves this problem? Trains with each of them on equal terms and compares.

use experiments::{Comparison, GroupConfig};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Comparison {
        name: "shootout",
        about: "Compare optimizers on a problem: each trains with the same seeds, and statistics tell them apart",
        optimizers: &["sgd:lr=0.05,momentum=0.9", "adam:lr=2e-3", "adamw:lr=2e-3"],
        groups: |options, optimizers| {
            let group = |optimizer: &String| GroupConfig {
                name: optimizer.clone(),
                dataset: options.dataset.clone(),
                model: options.model.clone().unwrap_or_default(),
                factors: [("optimizer".to_owned(), optimizer.clone())].into(),
                optimizer: optimizer.clone(),
                schedule: options.schedule.clone(),
            };
            optimizers.iter().map(group).collect()
        },
    })
}
