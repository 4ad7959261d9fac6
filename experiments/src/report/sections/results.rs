//! What came of each group.

use crate::{
    report::{
        group::{ReportGroup, Trial},
        number,
        problem::Problem,
        ranking::{ranking, shares_median},
        table::{Cell, Table},
    },
    stats,
};

/// The table of groups.
pub fn table(problem: &Problem) -> Table {
    let best = ranking(problem).first().copied();
    let is_best = |group: &ReportGroup| best.is_some_and(|best| best.is(group) || shares_median(best, group));
    let has_ema = problem.groups.iter().any(|group| group.summary.ema_loss.is_some());
    let row = |group: &&ReportGroup| {
        let summary = &group.summary;
        let cell = |estimate| Cell::estimate(estimate).to(group.href());
        let best = |best: Option<(f64, Trial)>, text: fn(f64) -> String| match best {
            Some((best, trial)) => Cell::new(text(best)).to(trial.href()).note(Some(seed(trial))),
            None => Cell::new(number::NONE),
        };
        let [low, high] = stats::share_interval(summary.diverged, summary.n);
        let share = (summary.n > 0).then(|| format!("{:.0} % to {:.0} %", low * 100.0, high * 100.0));
        let median = match summary.median_loss {
            Some(median) => number::number(median),
            None if summary.diverged > 0 => "diverged".to_owned(),
            None => number::NONE.to_owned(),
        };
        let at_edge = group.at_edge();
        let at_edge = (!at_edge.is_empty()).then(|| format!("{} at the edge of its space", at_edge.join(", ")));
        let mut row = vec![
            Cell::new(&group.name).to(group.href()).note(at_edge),
            Cell::new(median).to(group.href()).strong(is_best(group)),
            cell(number::estimate(&summary.loss)),
            Cell::new(summary.ended().to_string()).to(group.href()),
            best(group.best_loss(), number::number),
            cell(number::percent_estimate(&summary.accuracy)),
            best(group.best_accuracy(), number::percent),
        ];
        if has_ema {
            row.push(summary.ema_loss.as_ref().map_or(Cell::new(number::NONE), |loss| cell(number::estimate(loss))));
            let accuracy = summary.ema_accuracy.as_ref();
            row.push(accuracy.map_or(Cell::new(number::NONE), |share| cell(number::percent_estimate(share))));
        }
        row.extend([
            cell(number::estimate(&summary.seconds)),
            Cell::new(format!("{} of {}", summary.diverged, summary.n)).to(group.href()).note(share),
        ]);
        row
    };
    let rows: Vec<_> = problem.groups.iter().map(row).collect();
    let times = if problem.had_neighbours() {
        " Seconds depend on the trials that ran at the same time, and tell no group from another."
    } else {
        ""
    };
    let (of_ema, ema): (&[&str], _) = if has_ema {
        let told = " EMA: the same at the end, with the average of the weights (--ema), and batch norm's statistics renewed for it.";
        (&[">EMA loss", ">EMA accuracy (%)"], told)
    } else {
        (&[], "")
    };
    let head = ["group", ">median loss", ">mean loss", ">n", ">best loss", ">accuracy (%)", ">best (%)"];
    Table::new(
        format!("Results, {}", problem.title),
        &[&head, of_ema, &[">seconds", ">diverged"]].concat(),
        rows,
        format!(
            "Test loss (mean cross entropy), accuracy and training time at the end. Median: over all trials, of which those that diverged \
             count as worse than any number; the least is set off. Means are of the n trials that ended, and below them stand \
             their 95 % confidence intervals (Student's t over the seeds, none for fewer than two; by the delta method on a \
             logarithmic scale for losses and times and on a logit scale for shares, so that none leaves what can be). Best: the best \
             single evaluation of any seed, which is picked by the test data and so flatters.{ema} Diverged: trials whose loss left the \
             finite numbers or the limit, and below the 95 % interval of that share (Wilson).{times}"
        ),
    )
}

fn seed(trial: Trial) -> String {
    format!("seed {}", trial.record.config.seed)
}
