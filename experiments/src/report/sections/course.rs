//! Who leads when: the groups' ranks in the course of a run.

use crate::{
    record::metric::Metric,
    report::{
        group::{ReportGroup, Trial},
        number,
        page::table,
        problem::Problem,
        table::Cell,
    },
    stats,
};
use maud::{Markup, html};

/// After so many percent of the updates groups are ranked.
const PERCENT: [u64; 3] = [25, 50, 100];

/// How a group stands.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standing {
    /// The median test loss, of which diverged trials have the worst; infinite where it falls on these.
    median: f64,
    /// The share of its trials that diverged, where the median falls on them.
    diverged: f64,
}

/// The loss of `trial` after `percent` of its updates: infinite where it has diverged; none where it was not evaluated by then.
fn loss(trial: Trial, percent: u64) -> Option<f64> {
    let outcome = trial.outcome()?;
    let until = |step: u64| step * 100 <= trial.record.config.steps * percent;
    if outcome.diverged && (percent == 100 || until(outcome.steps)) {
        return Some(f64::INFINITY);
    }
    if percent == 100 {
        return outcome.final_loss;
    }
    let evaluated = trial.metrics.iter().rev().find_map(|metric| match *metric {
        Metric::Eval { step, loss, .. } if until(step) => Some(loss),
        _ => None,
    });
    // What is no number is worse than any.
    evaluated.map(|loss| if loss.is_nan() { f64::INFINITY } else { loss })
}

/// How `group` stands after `percent` of its updates; none where a trial was not evaluated by then.
fn standing(group: &ReportGroup, percent: u64) -> Option<Standing> {
    let losses = group.finals.iter().map(|trial| loss(*trial, percent)).collect::<Option<Vec<f64>>>()?;
    let median = stats::median(&losses)?;
    let diverged = losses.iter().filter(|loss| loss.is_infinite()).count() as f64 / losses.len() as f64;
    Some(Standing { median, diverged: if median.is_infinite() { diverged } else { 0.0 } })
}

/// The rank of each of `standings`, from 1; those alike share one.
fn ranks(standings: &[Option<Standing>]) -> Vec<Option<usize>> {
    let key = |standing: &Standing| (standing.median, standing.diverged);
    let rank = |own: &Standing| 1 + standings.iter().flatten().filter(|other| key(other) < key(own)).count();
    standings.iter().map(|standing| standing.as_ref().map(rank)).collect()
}

/// How all groups stand after a share of the updates.
struct Moment {
    percent: u64,
    standings: Vec<Option<Standing>>,
    ranks: Vec<Option<usize>>,
}

impl Moment {
    fn of(problem: &Problem, percent: u64) -> Self {
        let standings: Vec<Option<Standing>> = problem.groups.iter().map(|group| standing(group, percent)).collect();
        Self { percent, ranks: ranks(&standings), standings }
    }

    /// The cell of the group at `index`.
    fn cell(&self, index: usize, group: &ReportGroup) -> Cell {
        let Some((standing, rank)) = self.standings[index].zip(self.ranks[index]) else {
            return Cell::new(number::NONE);
        };
        let loss = if standing.median.is_finite() { number::number(standing.median) } else { "diverged".to_owned() };
        Cell::new(rank.to_string()).to(group.href()).note(Some(loss)).strong(rank == 1)
    }
}

/// The table of ranks, where groups were evaluated before the end.
pub fn table_of(problem: &Problem) -> Markup {
    let moments = PERCENT.into_iter().map(|percent| Moment::of(problem, percent));
    let moments: Vec<Moment> = moments.filter(|moment| moment.standings.iter().any(Option::is_some)).collect();
    if problem.groups.len() < 2 || moments.len() < 2 {
        return html! {};
    }
    let row = |(index, group): (usize, &&ReportGroup)| {
        let cells = moments.iter().map(|moment| moment.cell(index, group));
        std::iter::once(Cell::new(&group.name).to(group.href())).chain(cells).collect()
    };
    let rows: Vec<Vec<Cell>> = problem.groups.iter().enumerate().map(row).collect();
    let head = moments.iter().map(|moment| format!(">after {} %", moment.percent));
    let head: Vec<String> = std::iter::once("group".to_owned()).chain(head).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(
        &format!("Rank in the course of the run, {}", problem.title),
        &head,
        &rows,
        "The rank after a share of the updates, and below it the median test loss over the trials, by the latest evaluation at or before that \
         share. A trial that has diverged by then counts as worse than any number. It shows who leads early and loses later, and who needs \
         the whole run: schedules decay to the end, so early ranks are no test of a shorter run.",
    )
}
