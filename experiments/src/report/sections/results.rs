//! What came of each group, and which differences are more than chance.

use crate::report::{
    group::{Problem, Subject, Trial, facets},
    number,
    page::{Cell, table},
};
use crate::stats::{self, PairedTest};
use maud::{Markup, html};

/// A difference with a smaller p value is called significant.
pub const SIGNIFICANT: f64 = 0.05;

/// The most groups whose comparisons fit into a matrix; of more, those with the best are listed.
const WIDEST_MATRIX: usize = 8;

/// The groups of which any trial ended, best first: by the median loss at the end, of which trials that diverged have the worst;
/// where it falls on these, by the share of them; then by the mean of those that ended. A mean alone would favour who loses the
/// seeds that go badly.
pub fn ranking<'s, 'a>(problem: &Problem<'s, 'a>) -> Vec<&'s Subject<'a>> {
    let mut ranked: Vec<_> = problem.subjects.iter().copied().filter(|s| s.summary.loss.mean.is_some()).collect();
    let rank = |subject: &Subject| {
        let median = subject.summary.median_loss;
        let share = if median.is_none() { share_diverged(subject) } else { 0.0 };
        [median.unwrap_or(f64::INFINITY), share, subject.summary.loss.mean.unwrap_or(f64::NAN)]
    };
    ranked.sort_by(|a, b| {
        let pairs = rank(a).into_iter().zip(rank(b));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    ranked
}

fn share_diverged(subject: &Subject) -> f64 {
    subject.summary.diverged as f64 / subject.summary.n.max(1) as f64
}

/// The table of groups.
pub fn groups(problem: &Problem) -> Markup {
    let best = ranking(problem).first().copied();
    let is_best =
        |subject: &Subject| best.is_some_and(|best| best.anchor() == subject.anchor() || shares_median(best, subject));
    let row = |subject: &&Subject| {
        let summary = &subject.summary;
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
        let median = match summary.median_loss {
            Some(median) => number::number(median),
            None if summary.diverged > 0 => "diverged".to_owned(),
            None => number::NONE.to_owned(),
        };
        let at_edge = summary.searched.as_ref().filter(|searched| !searched.at_edge.is_empty());
        vec![
            Cell::new(&subject.name)
                .to(subject.href())
                .note(at_edge.map(|searched| format!("{} at the edge of its space", searched.at_edge.join(", ")))),
            Cell::new(median).to(subject.href()).strong(is_best(subject)),
            cell(loss, loss_interval),
            Cell::new(summary.ended().to_string()).to(subject.href()),
            extreme(|trial| trial.outcome()?.best_loss, number::number),
            cell(accuracy, accuracy_interval),
            extreme(|trial| Some(-trial.outcome()?.best_accuracy?), |least| number::percent(-least)),
            cell(seconds, seconds_interval),
            Cell::new(format!("{} of {}", summary.diverged, summary.n)).to(subject.href()).note(share),
        ]
    };
    let rows: Vec<_> = problem.subjects.iter().map(row).collect();
    let times = if problem.had_neighbours() {
        " Seconds depend on the trials that ran at the same time, and tell no group from another."
    } else {
        ""
    };
    table(
        &format!("Results, {}", problem.title),
        &[
            "group",
            ">median loss",
            ">mean loss",
            ">n",
            ">best loss",
            ">accuracy (%)",
            ">best (%)",
            ">seconds",
            ">diverged",
        ],
        &rows,
        &format!(
            "Test loss (mean cross entropy), accuracy and training time at the end. Median: over all trials, of which those that diverged \
             count as worse than any number; the least is set off. Means are of the n trials that ended, and below them stand \
             their 95 % confidence intervals (Student's t over the seeds, none for fewer than two; by the delta method on a \
             logarithmic scale for losses and times and on a logit scale for shares, so that none leaves what can be). Best: the best \
             single evaluation of any seed, which is picked by the test data and so flatters. Diverged: trials whose loss left the \
             finite numbers or the limit, and below the 95 % interval of that share (Wilson). Every number leads to its trials and \
             their configs.{times}"
        ),
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
    /// What is known of their end losses; none where they have fewer than two seeds in common that did not diverge.
    pub tested: Option<Tested>,
}

/// The test of a pair among others.
#[derive(Clone, Copy, Debug)]
pub struct Tested {
    /// The test; the difference is the one's loss minus the other's.
    pub test: PairedTest,
    /// The p value after Holm's correction for all pairs of the problem.
    pub adjusted: f64,
    /// The least difference, either way, that the seeds could have shown, the other pairs being as they are; none where all seeds differ
    /// by the same.
    pub least: Option<f64>,
}

impl Tested {
    /// The mean difference.
    fn mean(&self) -> f64 {
        self.test.difference.mean.unwrap_or(f64::NAN)
    }

    fn is_significant(&self) -> bool {
        self.adjusted < SIGNIFICANT
    }
}

/// How the groups of a problem are compared. Which pairs there are is known before any trial, so that the correction for their
/// number holds: pairs picked by their results would need more.
#[derive(Clone, Debug)]
pub enum Pairs<'s, 'a> {
    /// Each with each.
    All(Vec<Pair<'s, 'a>>),
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
        // A group of which no trial ended is one of those that were to be compared.
        let mut all = ranking(problem);
        let without = problem.subjects.iter().copied().filter(|subject| subject.summary.loss.mean.is_none());
        all.extend(without);
        let pairs_from = |i: usize| all[i + 1..].iter().map(move |b| (i, *b));
        Self::All(compare((0..all.len()).flat_map(pairs_from).map(|(i, b)| (all[i], b)).collect()))
    }

    /// All pairs.
    pub fn all(&self) -> &[Pair<'s, 'a>] {
        match self {
            Self::All(pairs) | Self::Warmup(pairs) => pairs,
        }
    }

    /// The pair of `a` and `b`, with the difference as `a` minus `b`; none where they are not compared.
    fn get(&self, a: &Subject, b: &Subject) -> Option<Pair<'s, 'a>> {
        let ends = [a.anchor(), b.anchor()];
        let of = |pair: &Pair| [pair.a.anchor(), pair.b.anchor()];
        let is = |pair: &&Pair| of(pair) == ends || of(pair) == [ends[1].clone(), ends[0].clone()];
        let mut pair = self.all().iter().find(is)?.clone();
        if of(&pair) != ends {
            std::mem::swap(&mut pair.a, &mut pair.b);
            if let Some(Tested { test, .. }) = &mut pair.tested {
                test.t = -test.t;
                test.difference.mean = test.difference.mean.map(|mean| -mean);
                test.difference.ci95 = test.difference.ci95.map(|[low, high]| [-high, -low]);
            }
        }
        Some(pair)
    }
}

/// Compares `pairs`. One that cannot be tested counts as p = 1 in the correction for their number, which no result makes smaller.
fn compare<'s, 'a>(pairs: Vec<(&'s Subject<'a>, &'s Subject<'a>)>) -> Vec<Pair<'s, 'a>> {
    let test = |(a, b): &(&'s Subject<'a>, &'s Subject<'a>)| {
        let seeds = a.seeds();
        stats::paired_t(&a.losses(&seeds), &b.losses(&seeds))
    };
    let tests: Vec<Option<PairedTest>> = pairs.iter().map(test).collect();
    let p: Vec<f64> = tests.iter().map(|test| test.map_or(1.0, |test| test.p)).collect();
    let adjusted = stats::holm(&p);
    let pair = |(index, ((a, b), test)): (usize, ((&'s Subject<'a>, &'s Subject<'a>), Option<PairedTest>))| {
        let tested = test.map(|test| {
            let least = test.least_significant(SIGNIFICANT, stats::holm_tests(&p, index, SIGNIFICANT));
            // Without any spread there is no limit to tell: nothing is known of what spread there could be.
            let least = (test.standard_error > 0.0).then_some(least);
            Tested { test, adjusted: adjusted[index], least }
        });
        Pair { a, b, tested }
    };
    pairs.into_iter().zip(tests).enumerate().map(pair).collect()
}

/// The matrix or list of comparisons.
pub fn comparisons(problem: &Problem, pairs: &Pairs) -> Markup {
    if pairs.all().is_empty() {
        return html! {};
    }
    let tested: Vec<&Tested> = pairs.all().iter().filter_map(|pair| pair.tested.as_ref()).collect();
    if tested.is_empty() {
        return html! {
            p { "No pair of groups on " (problem.title) " has two seeds in common that did not diverge, so no difference can be tested; \
                 train with more seeds for that." }
        };
    }
    let family = match (pairs, pairs.all().len()) {
        (_, 1) => "one comparison".to_owned(),
        (Pairs::All(_), n) => format!("{n} comparisons of each group with each other"),
        (Pairs::Warmup(_), n) => format!("{n} comparisons of a group with warmup and the same without"),
    };
    let family = match pairs.all().len() - tested.len() {
        0 => family,
        n => format!("{family}, of which {n} cannot be tested and count{} as p = 1", if n == 1 { "s" } else { "" }),
    };
    let least = tested.iter().filter_map(|tested| tested.least);
    let ends = least.clone().reduce(f64::min).zip(least.reduce(f64::max));
    let least = match ends.map(|(smallest, largest)| (number::number(smallest), number::number(largest))) {
        None => "none, since all seeds differ by the same".to_owned(),
        Some((smallest, largest)) if smallest == largest => smallest,
        Some((smallest, largest)) => format!("{smallest} to {largest}, by pair"),
    };
    let is_tuned = problem.subjects.iter().any(|subject| !subject.tuning.is_empty());
    let tuned = if is_tuned { ", which tuning picked once, by one seed of its own" } else { "" };
    let method = format!(
        "Differences of the mean test loss at the end, with the p value of a two-sided paired t-test: groups are paired by seed, which gives \
         them the same initial parameters and order of the data where models agree; seeds of which either diverged are left out, so that \
         the test says nothing of them. p values are adjusted by Holm's method for the {family}; a difference is set off where p < \
         {SIGNIFICANT}. They are over seeds with the hyperparameters as they are{tuned}: they tell whether these settings differ, not whether \
         one rule would beat another if both were tuned again. The least difference that so many seeds of such spread could \
         have shown as significant: {least}."
    );
    let ranked = ranking(problem);
    if let Pairs::All(_) = pairs
        && ranked.len() <= WIDEST_MATRIX
    {
        let head: Vec<String> = std::iter::once(String::new())
            .chain(ranked.iter().map(|column| format!(">minus {}", column.name)))
            .collect();
        let row = |row: &&Subject| {
            let cells = ranked.iter().map(|column| {
                if row.anchor() == column.anchor() {
                    return Cell::new("");
                }
                let Some(tested) = pairs.get(row, column).and_then(|pair| pair.tested) else {
                    return Cell::new(number::NONE);
                };
                Cell::new(number::difference(tested.mean()))
                    .to(row.href())
                    .note(Some(number::p_value(tested.adjusted)))
                    .strong(tested.is_significant())
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
        match &pair.tested {
            Some(tested) => {
                let test = &tested.test;
                let interval = test
                    .difference
                    .ci95
                    .map(|[low, high]| format!("{} to {}", number::difference(low), number::difference(high)));
                row.push(Cell::new(test.n.to_string()).to(pair.a.href()));
                row.push(
                    Cell::new(number::difference(tested.mean()))
                        .to(pair.a.href())
                        .note(interval)
                        .strong(tested.is_significant()),
                );
                row.push(Cell::new(tested.least.map_or(number::NONE.to_owned(), number::number)));
                row.push(Cell::new(number::p_value(test.p)));
                row.push(Cell::new(number::p_value(tested.adjusted)));
            }
            None => row.extend([number::NONE; 5].map(Cell::new)),
        }
        row
    };
    let (rows, which): (Vec<_>, _) = match (pairs, ranked.first()) {
        (Pairs::All(pairs), Some(best)) => {
            let with_best = pairs.iter().filter(|pair| pair.a.anchor() == best.anchor());
            (with_best.map(row).collect(), " Of all comparisons those of the first group with each other are shown.")
        }
        _ => (pairs.all().iter().map(row).collect(), ""),
    };
    let caption = format!(
        "{method}{which} A difference is the first group minus the second, with its 95 % confidence interval; beside it the least \
         that could have been significant."
    );
    table(
        &format!("Comparisons, {}", problem.title),
        &["group", "compared with", ">pairs", ">difference", ">least", ">p", ">adjusted p"],
        &rows,
        &caption,
    )
}

/// Who won, in a few sentences.
pub fn answer(problem: &Problem, pairs: &Pairs, name_problem: bool) -> String {
    let place = if name_problem { format!("On {}, ", problem.title) } else { String::new() };
    let ranked = ranking(problem);
    let Some(best) = ranked.first() else {
        let n: usize = problem.subjects.iter().map(|subject| subject.summary.n).sum();
        let all = match (n, name_problem) {
            (1, false) => "The only trial".to_owned(),
            (1, true) => "the only trial".to_owned(),
            (n, false) => format!("All {n} trials"),
            (n, true) => format!("all {n} trials"),
        };
        return format!("{place}{all} diverged: there is no result.");
    };
    let mut text = format!("{place}{}", won(best, &ranked));
    if let Some(second) = ranked.get(1) {
        text += &format!("; {}", lead(best, second, pairs));
    }
    text += ".";
    if let Some(warning) = best.summary.searched.as_ref().and_then(|searched| searched.warning()) {
        text += &format!(" Of {}, {warning}: a better value may lie outside.", best.name);
    }
    let at_edge = |subject: &&&Subject| {
        let is = |searched: &crate::record::summary::Searched| !searched.at_edge.is_empty();
        subject.anchor() != best.anchor() && subject.summary.searched.as_ref().is_some_and(is)
    };
    let at_edge: Vec<&str> = problem.subjects.iter().filter(at_edge).map(|subject| subject.name.as_str()).collect();
    match at_edge.as_slice() {
        [] => {}
        few @ ([_] | [_, _] | [_, _, _]) => {
            text += &format!(" Picked at the edge of what was searched: {}.", few.join(", "))
        }
        many => text += &format!(" {} other groups were picked at the edge of what was searched.", many.len()),
    }
    let diverged =
        problem.subjects.iter().filter(|subject| subject.summary.diverged > 0 && subject.anchor() != best.anchor());
    let diverged: Vec<String> = diverged
        .map(|subject| format!("{} of {} trials of {}", subject.summary.diverged, subject.summary.n, subject.name))
        .collect();
    match diverged.as_slice() {
        [] => {}
        few @ ([_] | [_, _] | [_, _, _]) => text += &format!(" Diverged: {}.", few.join(", ")),
        many => text += &format!(" In {} groups trials diverged.", many.len()),
    }
    text
}

/// What the first of `ranked` reached, and what that is worth where trials diverged.
fn won(best: &Subject, ranked: &[&Subject]) -> String {
    let summary = &best.summary;
    let (mean, interval) = number::estimate(&summary.loss);
    let mean = mean.unwrap_or_default();
    let interval = interval.map_or(String::new(), |interval| format!(", 95 % CI {interval}"));
    let (n, ended, diverged) = (summary.n, summary.ended(), summary.diverged);
    let of_ended = if diverged > 0 { format!(" of the {ended} that ended") } else { String::new() };
    let Some(median) = summary.median_loss else {
        return format!(
            "at least half the trials of every group diverged: {} comes first, of which {diverged} of {n} did (mean test loss{of_ended} \
             {mean}{interval})",
            best.name
        );
    };
    let sharing: Vec<&Subject> = ranked.iter().copied().filter(|other| shares_median(best, other)).collect();
    let median = number::number(median);
    let lowest = if sharing.len() > 1 {
        let names: Vec<&str> = sharing.iter().map(|subject| subject.name.as_str()).collect();
        let names = match names.as_slice() {
            few @ ([_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} and {} other groups", best.name, many.len() - 1),
        };
        // The first of them is named where the others differ from it.
        let is_same = sharing.iter().all(|other| other.summary.loss == summary.loss && other.summary.n == n);
        let whose = if is_same { String::new() } else { format!(" of {}", best.name) };
        match n {
            1 => format!("{names} share the lowest test loss, {median} (1 seed)"),
            n => format!(
                "{names} share the lowest median test loss, {median} over {n} seeds (mean{whose}{of_ended} {mean}{interval})"
            ),
        }
    } else if n == 1 {
        format!("{} reached the lowest test loss, {median} (1 seed)", best.name)
    } else {
        format!(
            "{} reached the lowest median test loss, {median} over {n} seeds (mean{of_ended} {mean}{interval})",
            best.name
        )
    };
    if diverged == 0 {
        return lowest;
    }
    let fewer = ranked.iter().filter(|other| share_diverged(other) < share_diverged(best));
    let fewer: Vec<&str> = fewer.map(|other| other.name.as_str()).collect();
    let than = match fewer.as_slice() {
        [] => String::new(),
        few @ ([_] | [_, _] | [_, _, _]) => format!(", more than of {}", few.join(", ")),
        many => format!(", more than of {} other groups", many.len()),
    };
    let trials = if sharing.len() > 1 { format!("the {n} trials of {}", best.name) } else { format!("its {n} trials") };
    format!("{lowest}, though {diverged} of {trials} diverged{than}")
}

/// Whether both have the same median loss, so that neither leads.
fn shares_median(a: &Subject, b: &Subject) -> bool {
    a.summary.median_loss.is_some() && a.summary.median_loss == b.summary.median_loss
}

/// How far `best` leads `second`, if it does.
fn lead(best: &Subject, second: &Subject, pairs: &Pairs) -> String {
    let (name, summary) = (&second.name, &second.summary);
    let loss = match summary.median_loss {
        Some(median) => number::number(median),
        None => format!("{} of {} diverged", summary.diverged, summary.n),
    };
    let is_tied = shares_median(best, second);
    let Some(pair) = pairs.get(best, second) else {
        if is_tied {
            return "pairs here differ in warmup alone, so these were not tested".to_owned();
        }
        return format!("its lead over {name} ({loss}) was not tested: pairs here differ in warmup alone");
    };
    let Some(tested) = pair.tested else {
        let why = if best.summary.n < 2 { " with one seed" } else { ": fewer than two seeds ended with both" };
        let what = if is_tied { "a difference of them".to_owned() } else { format!("its lead over {name} ({loss})") };
        return format!("{what} cannot be tested{why}");
    };
    let p = number::p_value(tested.adjusted);
    let is_partial = tested.test.n < best.summary.n.max(summary.n);
    let seeds =
        if is_partial { format!(" over the {} seeds of which neither diverged", tested.test.n) } else { String::new() };
    let mean = tested.mean();
    // What could have been told apart is known by the spread of the differences alone.
    let limit = tested.least.filter(|_| !tested.is_significant()).map_or(String::new(), |least| {
        format!("; no difference of means below {} could have been significant", number::number(least))
    });
    if mean == 0.0 {
        let how = match (is_tied, tested.least.is_none()) {
            (true, true) => "no seed tells them apart".to_owned(),
            (true, false) => "their means do not differ".to_owned(),
            (false, true) => format!("no seed tells it from {name} ({loss})"),
            (false, false) => format!("its mean is that of {name} ({loss})"),
        };
        return format!("{how} ({p}{seeds}{limit})");
    }
    if is_tied {
        let is = if tested.is_significant() { "is" } else { "is not" };
        let (than, by) = (if mean > 0.0 { "lower" } else { "higher" }, number::number(mean.abs()));
        return format!("the mean of {name} is {than} by {by}{seeds}, which {is} significant ({p}{limit})");
    }
    if mean > 0.0 {
        let is = if tested.is_significant() { "is" } else { "is not" };
        let by = number::number(mean);
        return format!("but the mean of {name} (median {loss}) is lower by {by}{seeds}, which {is} significant ({p})");
    }
    if tested.is_significant() {
        return format!("its lead over {name} ({loss}) is significant ({p}{seeds})");
    }
    format!("its lead over {name} ({loss}) is not significant ({p}{seeds}{limit})")
}
