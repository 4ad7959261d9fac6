//! What came of each group, and which differences are more than chance.

use super::{
    html::{Cell, table},
    number,
    subject::{Problem, Subject, Trial, facets},
};
use crate::{
    plot::STYLES,
    stats::{self, Comparison},
};
use maud::{Markup, html};

/// A difference with a smaller p value is called significant.
pub const SIGNIFICANT: f64 = 0.05;

/// The groups that have a mean loss, best first: those of which no trial diverged, then the others, each by their mean.
pub fn ranking<'s, 'a>(problem: &Problem<'s, 'a>) -> Vec<&'s Subject<'a>> {
    let mut ranked: Vec<_> = problem.subjects.iter().copied().filter(|s| s.summary.loss.mean.is_some()).collect();
    let rank = |subject: &Subject| (subject.summary.diverged > 0, subject.summary.loss.mean.unwrap_or(f64::NAN));
    ranked.sort_by(|a, b| {
        let ((a_diverged, a), (b_diverged, b)) = (rank(a), rank(b));
        a_diverged.cmp(&b_diverged).then(a.total_cmp(&b))
    });
    ranked
}

/// The table of groups.
pub fn groups(problem: &Problem) -> Markup {
    let best = ranking(problem).first().map(|subject| subject.anchor());
    let row = |subject: &&Subject| {
        let summary = subject.summary;
        let (loss, loss_interval) = number::estimate(&summary.loss);
        let (accuracy, accuracy_interval) = number::percent_estimate(&summary.accuracy);
        let (seconds, seconds_interval) = number::estimate(&summary.seconds);
        let cell = |text: Option<String>, note| {
            Cell::new(text.unwrap_or(number::NONE.to_owned())).to(subject.href()).note(note)
        };
        let extreme = |value: fn(Trial) -> Option<f64>, text: fn(f64) -> String| {
            let values = subject.finals.iter().filter_map(|trial| Some((value(*trial)?, trial)));
            match values.min_by(|(a, _), (b, _)| a.total_cmp(b)) {
                Some((least, trial)) => Cell::new(text(least)).to(trial.href()).note(Some(seed(*trial))),
                None => Cell::new(number::NONE),
            }
        };
        let [low, high] = stats::share_interval(summary.diverged, summary.n);
        let share = (summary.n > 0).then(|| format!("{:.0} % to {:.0} %", low * 100.0, high * 100.0));
        vec![
            Cell::new(&subject.name).to(subject.href()),
            Cell::new(summary.n.to_string()).to(subject.href()),
            cell(loss, loss_interval).strong(best == Some(subject.anchor())),
            extreme(|trial| trial.outcome()?.best_loss, number::number),
            cell(accuracy, accuracy_interval),
            extreme(|trial| Some(-trial.outcome()?.best_accuracy?), |least| number::percent(-least)),
            cell(seconds, seconds_interval),
            Cell::new(format!("{} of {}", summary.diverged, summary.n)).to(subject.href()).note(share),
        ]
    };
    let rows: Vec<_> = problem.subjects.iter().map(row).collect();
    table(
        &format!("Results, {}", problem.title),
        &["group", ">n", ">test loss", ">best loss", ">accuracy (%)", ">best (%)", ">seconds", ">diverged"],
        &rows,
        "Test loss (mean cross entropy), accuracy and training time at the end: the mean over the n seeds that did not diverge and below \
         it its 95 % confidence interval (Student's t over the seeds; none for fewer than two). Best: the best single evaluation of \
         any seed, which is picked by the test data and so flatters. Diverged: trials whose loss left the finite numbers or the \
         limit, and below the 95 % interval of that share (Wilson). The least mean loss of a group without divergence is set \
         off. Every number leads to its trials and their configs.",
    )
}

fn seed(trial: Trial) -> String {
    format!("seed {}", trial.record.config.seed)
}

/// The comparison of two groups.
#[derive(Clone, Debug)]
pub struct Pair<'s, 'a> {
    /// The one.
    pub a: &'s Subject<'a>,
    /// The other.
    pub b: &'s Subject<'a>,
    /// The test of their end losses; none where they have fewer than two seeds in common that did not diverge.
    pub test: Option<Comparison>,
    /// The p value after Holm's correction for all pairs of the problem.
    pub adjusted: Option<f64>,
}

/// How the groups of a problem are compared.
#[derive(Clone, Debug)]
pub enum Pairs<'s, 'a> {
    /// Each with each.
    All(Vec<Pair<'s, 'a>>),
    /// The best with each of the others.
    WithBest(Vec<Pair<'s, 'a>>),
    /// With warmup and without, all else the same.
    Warmup(Vec<Pair<'s, 'a>>),
}

impl<'s, 'a> Pairs<'s, 'a> {
    /// Compares the groups of `problem`.
    pub fn of(problem: &Problem<'s, 'a>) -> Self {
        if problem.subjects.iter().all(|subject| subject.experiment == "warmup") {
            let pairs = facets(&problem.subjects).into_iter().filter_map(|facet| {
                let find = |value: &str| {
                    let is = |subject: &&Subject| subject.factor("warmup").as_deref() == Some(value);
                    facet.curves.iter().map(|curve| curve.subject).find(is)
                };
                find("yes").zip(find("no"))
            });
            return Self::Warmup(compare(pairs.collect()));
        }
        let ranked = ranking(problem);
        let pairs_from = |i: usize| ranked[i + 1..].iter().map(move |b| (i, *b));
        if ranked.len() <= STYLES {
            let pairs = (0..ranked.len()).flat_map(pairs_from).map(|(i, b)| (ranked[i], b)).collect();
            Self::All(compare(pairs))
        } else {
            Self::WithBest(compare(pairs_from(0).map(|(i, b)| (ranked[i], b)).collect()))
        }
    }

    /// All pairs.
    pub fn all(&self) -> &[Pair<'s, 'a>] {
        match self {
            Self::All(pairs) | Self::WithBest(pairs) | Self::Warmup(pairs) => pairs,
        }
    }

    /// The pair of `a` and `b`.
    fn get(&self, a: &Subject, b: &Subject) -> Option<&Pair<'s, 'a>> {
        let ends = [a.anchor(), b.anchor()];
        self.all().iter().find(|pair| {
            let own = [pair.a.anchor(), pair.b.anchor()];
            own == ends || (own[0] == ends[1] && own[1] == ends[0])
        })
    }
}

fn compare<'s, 'a>(pairs: Vec<(&'s Subject<'a>, &'s Subject<'a>)>) -> Vec<Pair<'s, 'a>> {
    let test = |(a, b): (&'s Subject<'a>, &'s Subject<'a>)| {
        let seeds = a.seeds();
        Pair { a, b, test: stats::paired_t(&a.losses(&seeds), &b.losses(&seeds)), adjusted: None }
    };
    let mut pairs: Vec<Pair> = pairs.into_iter().map(test).collect();
    let tested: Vec<&mut Pair> = pairs.iter_mut().filter(|pair| pair.test.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|pair| pair.test.as_ref()).map(|test| test.p).collect();
    for (pair, adjusted) in tested.into_iter().zip(stats::holm(&p)) {
        pair.adjusted = Some(adjusted);
    }
    pairs
}

/// The matrix or list of comparisons.
pub fn comparisons(problem: &Problem, pairs: &Pairs) -> Markup {
    let tested = pairs.all().iter().filter(|pair| pair.test.is_some()).count();
    if pairs.all().is_empty() {
        return html! {};
    }
    if tested == 0 {
        return html! {
            p { "No pair of groups on " (problem.title) " has two seeds in common that did not diverge, so no difference can be tested; \
                 train with more seeds for that." }
        };
    }
    let family = if tested == 1 { "one comparison".to_owned() } else { format!("{tested} comparisons") };
    let method = format!(
        "Differences of the mean test loss at the end, with the p value of a two-sided paired t-test: groups are paired by seed, which gives \
         them the same initial parameters and order of the data where models agree; seeds of which either diverged are left out. \
         p values are adjusted by Holm's method for the {family} made here; a difference is set off where p < {SIGNIFICANT}."
    );
    if let Pairs::All(_) = pairs {
        let ranked = ranking(problem);
        let head: Vec<String> =
            std::iter::once(String::new()).chain(ranked.iter().map(|column| format!(">− {}", column.name))).collect();
        let row = |row: &&Subject| {
            let cells = ranked.iter().map(|column| {
                if row.anchor() == column.anchor() {
                    return Cell::new("");
                }
                let Some((test, adjusted)) =
                    pairs.get(row, column).and_then(|pair| pair.test.as_ref().zip(pair.adjusted))
                else {
                    return Cell::new(number::NONE);
                };
                let is_turned = pairs.get(row, column).is_some_and(|pair| pair.a.anchor() != row.anchor());
                let mean = test.difference.mean.unwrap_or(f64::NAN) * if is_turned { -1.0 } else { 1.0 };
                Cell::new(number::difference(mean))
                    .to(row.href())
                    .note(Some(number::p_value(adjusted)))
                    .strong(adjusted < SIGNIFICANT)
            });
            std::iter::once(Cell::new(&row.name).to(row.href())).chain(cells).collect()
        };
        let rows: Vec<_> = ranked.iter().map(row).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let caption = format!("{method} A cell is row minus column, so a negative number speaks for the row.");
        return table(&format!("Comparisons, {}", problem.title), &head, &rows, &caption);
    }
    let row = |pair: &Pair| {
        let mut row = vec![Cell::new(&pair.a.name).to(pair.a.href()), Cell::new(&pair.b.name).to(pair.b.href())];
        match (&pair.test, pair.adjusted) {
            (Some(test), Some(adjusted)) => {
                let interval = test
                    .difference
                    .ci95
                    .map(|[low, high]| format!("{} to {}", number::difference(low), number::difference(high)));
                let mean = test.difference.mean.unwrap_or(f64::NAN);
                row.push(Cell::new(test.n.to_string()).to(pair.a.href()));
                row.push(
                    Cell::new(number::difference(mean)).to(pair.a.href()).note(interval).strong(adjusted < SIGNIFICANT),
                );
                row.push(Cell::new(number::p_value(test.p)));
                row.push(Cell::new(number::p_value(adjusted)));
            }
            _ => row.extend([number::NONE; 4].map(Cell::new)),
        }
        row
    };
    let rows: Vec<_> = pairs.all().iter().map(row).collect();
    let caption =
        format!("{method} A difference is the first group minus the second, with its 95 % confidence interval.");
    table(
        &format!("Comparisons, {}", problem.title),
        &["group", "compared with", ">pairs", ">difference", ">p", ">adjusted p"],
        &rows,
        &caption,
    )
}

/// Who won, in a sentence or three.
pub fn answer(problem: &Problem, pairs: &Pairs, name_problem: bool) -> String {
    let place = if name_problem { format!("On {}, ", problem.title) } else { String::new() };
    let ranked = ranking(problem);
    let Some(best) = ranked.first() else {
        let n: usize = problem.subjects.iter().map(|subject| subject.summary.n).sum();
        return format!(
            "{place}{} trials of every group diverged: there is no result.",
            if n == 1 { "the 1".to_owned() } else { format!("all {n}") }
        )
        .replacen("all", if place.is_empty() { "All" } else { "all" }, 1);
    };
    let (loss, interval) = number::estimate(&best.summary.loss);
    let seeds = best.summary.n;
    let interval = interval.map_or(String::new(), |interval| format!("95 % CI {interval}, "));
    let plural = if seeds == 1 { "" } else { "s" };
    let mut text = format!(
        "{place}{} reached the lowest test loss, {} ({interval}{seeds} seed{plural})",
        best.name,
        loss.unwrap_or_default()
    );
    if best.summary.diverged > 0 {
        text += &format!(", though {} of its trials diverged", best.summary.diverged);
    }
    if let Some(second) = ranked.get(1) {
        let (loss, _) = number::estimate(&second.summary.loss);
        let lead = format!("its lead over {} ({})", second.name, loss.unwrap_or_default());
        text += &match pairs.get(best, second).and_then(|pair| pair.adjusted) {
            Some(p) if p < SIGNIFICANT => format!("; {lead} is significant ({}).", number::p_value(p)),
            Some(p) => format!("; {lead} is not significant ({}).", number::p_value(p)),
            None if seeds < 2 => format!("; {lead} cannot be tested with one seed."),
            None => format!("; {lead} was not tested."),
        };
    } else {
        text += ".";
    }
    let diverged =
        problem.subjects.iter().filter(|subject| subject.summary.diverged > 0 && subject.anchor() != best.anchor());
    let diverged: Vec<String> = diverged
        .map(|subject| format!("{} of {} trials of {}", subject.summary.diverged, subject.summary.n, subject.name))
        .collect();
    match diverged.as_slice() {
        [] => {}
        few @ [_] | few @ [_, _] | few @ [_, _, _] => text += &format!(" Diverged: {}.", few.join(", ")),
        many => text += &format!(" In {} groups trials diverged.", many.len()),
    }
    text
}
