//! What each problem is in full.

use crate::{
    record::workload::Workload,
    report::{number, page::table, problem::Problem, table::Cell},
};
use maud::Markup;

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
            rows.push(vec![
                Cell::new(&problem.title),
                Cell::new(&workload.model),
                Cell::new(workload.parameters.to_string()),
                Cell::new(workload.classes.to_string()),
                Cell::new(workload.steps.to_string()),
                Cell::new(workload.batch_size.to_string()),
                Cell::new(workload.evaluate_every.to_string()),
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
        "Models with all their keys; batch: examples per update; evaluated: updates between two evaluations; constant: the loss of the best \
         prediction that ignores the input; floor: the loss that no model's expected loss is below, where that is known.",
    )
}
