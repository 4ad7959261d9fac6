//! How soon a target is reached.

use crate::{
    config::targets::Targets,
    record::{metric::Metric, run::Run},
    report::{
        group::{ReportGroup, Trial},
        number,
        page::table,
        problem::Problem,
        ranking::ranking,
        samples::By,
        table::Cell,
    },
    stats,
};
use maud::Markup;

/// A value of an evaluation to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The value.
    pub value: f64,
    /// Whether it is an accuracy, to be reached from below; otherwise a loss.
    pub is_accuracy: bool,
    /// Whether the user set it; otherwise it follows from the results.
    pub is_given: bool,
}

impl Target {
    /// The targets of `problem`: those in `given`, else those that a run was told; where there is neither, the median over its groups of
    /// the median loss at the end.
    pub fn of(problem: &Problem, given: &Targets, runs: &[Run]) -> Vec<Self> {
        let told = |key: &str| {
            let runs = problem.groups.iter().map(|group| &runs[group.run]);
            runs.filter_map(|run| run.experiment.config.get(key)?.as_f64()).find(|value| value.is_finite())
        };
        let accuracy = given.accuracy.or_else(|| told("target_accuracy"));
        let loss = given.loss.or_else(|| told("target_loss"));
        let accuracy = accuracy.map(|value| Self { value, is_accuracy: true, is_given: true });
        let loss = loss.map(|value| Self { value, is_accuracy: false, is_given: true });
        let targets: Vec<Self> = accuracy.into_iter().chain(loss).collect();
        if !targets.is_empty() {
            return targets;
        }
        let ends: Vec<f64> = ranking(problem).iter().filter_map(|group| group.summary.median_loss).collect();
        let value = stats::median(&ends);
        value.map(|value| Self { value, is_accuracy: false, is_given: false }).into_iter().collect()
    }

    /// What it is in words.
    pub fn text(self) -> String {
        if self.is_accuracy {
            format!("test accuracy of {} %", number::percent(self.value))
        } else {
            format!("test loss of {}", number::number(self.value))
        }
    }

    /// Where in `trial` it is reached first; none where it never is.
    fn reached(self, trial: Trial, by: By) -> Option<f64> {
        let point = |metric: &Metric| match *metric {
            Metric::Eval { step, loss, accuracy, seconds } => {
                let x = if by == By::Step { step as f64 } else { seconds };
                Some((x, if self.is_accuracy { accuracy } else { loss })).filter(|(_, y)| y.is_finite())
            }
            Metric::Train { .. } | Metric::Ema { .. } | Metric::Probe { .. } => None,
        };
        let points: Vec<_> = trial.metrics.iter().filter_map(point).collect();
        stats::first_reached(&points, self.value, self.is_accuracy)
    }

    /// The median over the trials of `group`, of which those that never reach it are the slowest; none where it falls on those.
    pub fn median(self, group: &ReportGroup, by: By) -> Option<f64> {
        let places = group.finals.iter().map(|trial| self.reached(*trial, by).unwrap_or(f64::INFINITY));
        stats::median(&places.collect::<Vec<_>>()).filter(|place| place.is_finite())
    }
}

/// What training times are worth where trials competed for the cores.
pub const NEIGHBOURS: &str =
    " Several trials ran at a time, so that training times depend on what ran beside them: compare steps.";

/// The table of steps and seconds to `target`.
pub fn time_to(problem: &Problem, target: Target) -> Markup {
    let row = |group: &&ReportGroup| {
        let cell = |by: By, text: fn(f64) -> String| {
            let places: Vec<f64> = group.finals.iter().filter_map(|trial| target.reached(*trial, by)).collect();
            let least = places.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = (places.len() > 1).then(|| format!("{} to {}", text(least), text(greatest)));
            let median = target.median(group, by).map_or("not reached".to_owned(), text);
            Cell::new(median).to(group.href()).note(range)
        };
        let reached = group.finals.iter().filter(|trial| target.reached(**trial, By::Step).is_some()).count();
        vec![
            Cell::new(&group.name).to(group.href()),
            Cell::new(format!("{reached} of {}", group.finals.len())).to(group.href()),
            cell(By::Step, |steps| format!("{steps}")),
            cell(By::Seconds, number::seconds),
        ]
    };
    let rows: Vec<_> = problem.groups.iter().map(row).collect();
    let neighbours = if problem.had_neighbours() { NEIGHBOURS } else { "" };
    let origin = if target.is_given {
        ""
    } else {
        " No target was set, so this one follows from the results: the median over the groups of their median test loss at the end. It \
         tells how soon groups come to what is usual here, and is no test of which is better."
    };
    table(
        &format!("Time to a {}, {}", target.text(), problem.title),
        &["group", ">reached by", ">steps", ">training time"],
        &rows,
        &format!(
            "The first evaluation at or past the target: the median over the trials, of which those that never reach it count as slower \
             than all others; below it the range of those that do. Evaluations are some steps apart, so times are no finer than \
             that.{neighbours}{origin}"
        ),
    )
}
