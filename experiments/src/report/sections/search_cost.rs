//! What tuning cost, and how sure what it picked is.

use super::tuning::{learning_rate, setting_list, stopped_early, varied};
use crate::{
    report::{
        group::{ReportGroup, Trial},
        number,
        page::{table, text},
        problem::Problem,
        table::Cell,
    },
    stats,
};
use maud::{Markup, html};

/// So many standard deviations are noise.
const DEVIATIONS: f64 = 2.0;

/// The best of a group's tuning trials beside the second best.
struct Choice<'a> {
    best: Trial<'a>,
    second: Trial<'a>,
    /// By what share of the best loss the second is worse; infinite where the best is 0.
    worse: f64,
    /// Two standard deviations of the end losses over the seeds, as a share of their mean; none of fewer than two seeds.
    noise: Option<f64>,
    /// The trials, the best included, that are worse than it by less than the noise.
    alike: Vec<Trial<'a>>,
}

impl<'a> Choice<'a> {
    /// None where fewer than two tuning trials ended.
    fn of(group: &ReportGroup<'a>) -> Option<Self> {
        let mut ended: Vec<(f64, Trial)> = group
            .tuning
            .iter()
            .filter_map(|trial| Some((trial.final_loss().filter(|loss| loss.is_finite())?, *trial)))
            .collect();
        // A stable sort: of equals the first is picked.
        ended.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let &[(least, best), (_, second), ..] = ended.as_slice() else { return None };
        let worse = |loss: f64| if loss == least { 0.0 } else { (loss - least) / least };
        let losses: Vec<f64> = group.finals.iter().filter_map(|trial| trial.final_loss()).collect();
        let spread = stats::standard_deviation(&losses).zip(stats::mean(&losses).filter(|mean| *mean > 0.0));
        let noise = spread.map(|(deviation, mean)| DEVIATIONS * deviation / mean);
        let is_alike = |(loss, _): &&(f64, Trial)| worse(*loss) < noise.unwrap_or(0.0);
        let alike = ended.iter().filter(is_alike).map(|(_, trial)| *trial).collect();
        Some(Self { best, second, worse: worse(ended[1].0), noise, alike })
    }

    /// From where to where the learning rate of those alike lies; none where it is the same.
    fn rates(&self) -> Option<String> {
        let rates = || self.alike.iter().filter_map(|trial| learning_rate(*trial));
        let (low, high) = (rates().reduce(f64::min)?, rates().reduce(f64::max)?);
        (low < high).then(|| format!("lr {} to {}", number::setting(low), number::setting(high)))
    }

    /// Whether the second best may be as good.
    fn is_within_noise(&self) -> bool {
        self.noise.is_some_and(|noise| self.worse < noise)
    }
}

/// The table of costs, and below it the picks that are no better than the second best.
pub fn section(problem: &Problem) -> Markup {
    let tuned: Vec<&ReportGroup> = problem.groups.iter().copied().filter(|group| !group.tuning.is_empty()).collect();
    let choices: Vec<Option<Choice>> = tuned.iter().map(|group| Choice::of(group)).collect();
    let row = |(group, choice): (&&ReportGroup, &Option<Choice>)| {
        let spent =
            |value: fn(Trial) -> Option<f64>| group.tuning.iter().filter_map(|trial| value(*trial)).sum::<f64>();
        let updates = spent(|trial| Some(trial.outcome()?.steps as f64));
        let seconds = spent(|trial| Some(trial.outcome()?.seconds));
        let times = |spent: f64, of_one: Option<f64>| {
            of_one.filter(|one| *one > 0.0).map(|one| format!("{:.1} × a final trial", spent / one))
        };
        let mut row = vec![
            Cell::new(&group.name).to(group.href()),
            Cell::new(group.tuning.len().to_string()).to(group.href()).note(stopped_early(group)),
            Cell::new(format!("{updates}")).note(times(updates, Some(group.steps() as f64))),
            Cell::new(number::seconds(seconds)).note(times(seconds, group.summary.seconds.mean)),
        ];
        match choice {
            Some(choice) => {
                let cell = |trial: Trial| {
                    let loss = trial.final_loss().map(number::number);
                    Cell::new(tried(group, trial)).to(trial.href()).note(loss)
                };
                row.extend([cell(choice.best), cell(choice.second)]);
                row.push(
                    Cell::new(
                        Some(choice.worse)
                            .filter(|worse| worse.is_finite())
                            .map_or(number::NONE.to_owned(), |worse| format!("{} %", number::percent(worse))),
                    )
                    .strong(choice.is_within_noise())
                    .note(choice.noise.map(|noise| format!("noise {} %", number::percent(noise)))),
                );
                let alike = choice.noise.map(|_| format!("{} of {}", choice.alike.len(), group.tuning.len()));
                row.push(Cell::new(alike.unwrap_or(number::NONE.to_owned())).note(choice.rates()));
            }
            None => row.extend([number::NONE; 4].map(Cell::new)),
        }
        row
    };
    let rows: Vec<_> = tuned.iter().zip(&choices).map(row).collect();
    let warnings: Vec<String> =
        tuned.iter().zip(&choices).filter_map(|(group, choice)| warning(group, choice.as_ref()?)).collect();
    let neighbours = if problem.had_neighbours() {
        " Several trials ran at a time, so that seconds depend on what ran beside them."
    } else {
        ""
    };
    html! {
        (table(
            &format!("What tuning cost, {}", problem.title),
            &["group", ">trials", ">updates", ">seconds", "picked", "second best", ">worse by", ">within noise"],
            &rows,
            &format!(
                "Updates and training time of all tuning trials of a group, and below them as a multiple of one final trial (its updates; \
                 the mean of its seconds). Worse by: the validation loss of the second best tuning trial over that of the best, minus 1. Noise: \
                 two standard deviations of the group's test losses at the end over its final seeds that did not diverge, over their mean. It \
                 is set off where the second best is worse by less than the noise; within noise counts all trials of which that is so, with the \
                 best, and tells their learning rates. Validation losses are of one seed, and noise of them is not known: that of the test loss stands for it.{neighbours}"
            ),
        ))
        @if !warnings.is_empty() { ul.warnings { @for warning in &warnings { li { (text(warning)) } } } }
    }
}

/// What a reader must know where the second best may be as good.
fn warning(group: &ReportGroup, choice: &Choice) -> Option<String> {
    let noise = choice.noise.filter(|_| choice.is_within_noise())?;
    let all = choice.rates().map_or(String::new(), |rates| {
        format!(" So are {} of {} trials in all, with {rates}.", choice.alike.len(), group.tuning.len())
    });
    Some(format!(
        "{}: {} and {} are equally good as far as the seeds tell: the second is worse by {} %, and the noise is {} %.{all}",
        group.name,
        tried(group, choice.best),
        tried(group, choice.second),
        number::percent(choice.worse),
        number::percent(noise)
    ))
}

/// What `trial` of `group` was tried with.
fn tried(group: &ReportGroup, trial: Trial) -> String {
    let tried = setting_list(varied(group).iter().filter_map(|key| Some((key.as_str(), trial.hyperparameter(key)?))));
    if tried.is_empty() { "the same".to_owned() } else { tried }
}
