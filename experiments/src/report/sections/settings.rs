//! What each problem is in full.

use crate::{
    record::{trial::TrialConfig, workload::Workload},
    report::{number, page::table, problem::Problem, table::Cell},
};
use maud::Markup;
use std::collections::BTreeSet;

/// The table of what was trained.
pub fn table_of<'p>(problems: impl Iterator<Item = &'p Problem<'p, 'p>>) -> Markup {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut seen: Vec<(&str, &Workload)> = Vec::new();
    for problem in problems {
        for workload in problem.groups.iter().filter_map(|group| group.workload) {
            if seen.contains(&(&problem.title, workload)) {
                continue;
            }
            seen.push((&problem.title, workload));
            // What a run compares is not of the workload.
            let of = |own: u64, value: fn(&TrialConfig) -> u64| {
                let groups = problem.groups.iter().filter(|group| group.workload == Some(workload));
                let configs = groups.flat_map(|group| &group.finals).map(|trial| value(&trial.record.config));
                let values: BTreeSet<u64> = configs.collect();
                let values = if values.is_empty() { BTreeSet::from([own]) } else { values };
                values.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
            };
            rows.push(vec![
                Cell::new(&problem.title),
                Cell::new(&workload.model),
                Cell::new(workload.parameters.to_string()),
                Cell::new(workload.classes.to_string()),
                Cell::new(of(workload.steps, |config| config.steps)),
                Cell::new(of(workload.batch_size as u64, |config| config.batch_size as u64)),
                Cell::new(of(workload.evaluate_every, |config| config.evaluate_every))
                    .note(workload.evaluate_on.map(|examples| format!("on {examples} examples"))),
                Cell::new(number::number(workload.constant_loss)),
                Cell::new(workload.floor.map_or(number::NONE.to_owned(), number::number)),
            ]);
        }
    }
    table(
        "What was trained",
        &[
            "problem",
            "model",
            ">parameters",
            ">classes",
            ">updates",
            ">batch",
            ">evaluated every",
            ">constant",
            ">floor",
        ],
        &rows,
        "Models with all their keys; batch: examples per update; evaluated: updates between two evaluations, and on how many test \
         examples (images, or windows of text) those before the last are made, where not on all; constant: the loss of the best \
         prediction that ignores the input; floor: the loss that no model's expected loss is below, where that is known.",
    )
}
