//! How soon a target is reached, and who is soonest over many problems.

use crate::report::{
    group::{Problem, Subject, Trial, aspect},
    number,
    page::{Cell, keys, table},
    sections::curves::By,
    sections::results::ranking,
};
use crate::{
    config::targets::Targets,
    record::{metric::Metric, run::Run},
    report::plot::{Axis, Curve, Drawn, Figure, Panel, Point, Row, STYLES},
    stats::{self, Profile},
};
use maud::Markup;
use std::collections::BTreeSet;

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
            let runs = problem.subjects.iter().map(|subject| &runs[subject.run]);
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
        let ends: Vec<f64> = ranking(problem).iter().filter_map(|subject| subject.summary.median_loss).collect();
        let value = stats::median(&ends);
        value.map(|value| Self { value, is_accuracy: false, is_given: false }).into_iter().collect()
    }

    /// What it is in words.
    fn text(self) -> String {
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
            Metric::Train { .. } | Metric::Probe { .. } => None,
        };
        let points: Vec<_> = trial.metrics.iter().filter_map(point).collect();
        stats::first_reached(&points, self.value, self.is_accuracy)
    }

    /// The median over the trials of `subject`, of which those that never reach it are the slowest; none where it falls on those.
    fn median(self, subject: &Subject, by: By) -> Option<f64> {
        let places = subject.finals.iter().map(|trial| self.reached(*trial, by).unwrap_or(f64::INFINITY));
        stats::median(&places.collect::<Vec<_>>()).filter(|place| place.is_finite())
    }
}

/// What training times are worth where trials competed for the cores.
const NEIGHBOURS: &str =
    " Several trials ran at a time, so that training times depend on what ran beside them: compare steps.";

/// The table of steps and seconds to `target`.
pub fn time_to(problem: &Problem, target: Target) -> Markup {
    let row = |subject: &&Subject| {
        let cell = |by: By, text: fn(f64) -> String| {
            let places: Vec<f64> = subject.finals.iter().filter_map(|trial| target.reached(*trial, by)).collect();
            let least = places.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = (places.len() > 1).then(|| format!("{} to {}", text(least), text(greatest)));
            let median = target.median(subject, by).map_or("not reached".to_owned(), text);
            Cell::new(median).to(subject.href()).note(range)
        };
        let reached = subject.finals.iter().filter(|trial| target.reached(**trial, By::Step).is_some()).count();
        vec![
            Cell::new(&subject.name).to(subject.href()),
            Cell::new(format!("{reached} of {}", subject.finals.len())).to(subject.href()),
            cell(By::Step, |steps| format!("{steps}")),
            cell(By::Seconds, number::seconds),
        ]
    };
    let rows: Vec<_> = problem.subjects.iter().map(row).collect();
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

/// Who is soonest over all problems.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// What is compared over the problems.
    solvers: Vec<String>,
    /// The titles of the problems with their targets.
    problems: Vec<String>,
    /// On how many of them any of these reached the target.
    decided: usize,
    /// By steps.
    steps: Vec<Profile>,
    /// By training time.
    seconds: Vec<Profile>,
    /// Whether times depend on what else was at work.
    had_neighbours: bool,
}

impl Profiles {
    /// The profiles of what took part in all problems that anything shares; none where there are not two problems and two that took
    /// part in all. Who is missing from a problem neither won it nor lost it.
    pub fn of(problems: &[Problem], given: &Targets, runs: &[Run]) -> Option<Self> {
        let name = namer(problems);
        let has = |problem: &Problem, solver: &String| problem.subjects.iter().any(|subject| name(subject) == *solver);
        let targets = problems.iter().filter_map(|problem| Some((problem, *Target::of(problem, given, runs).first()?)));
        let shared: Vec<(&Problem, Target)> = targets.filter(|(problem, _)| problem.subjects.len() > 1).collect();
        let mut solvers: Vec<String> = Vec::new();
        for subject in shared.first().map(|(problem, _)| &problem.subjects).into_iter().flatten() {
            let solver = name(subject);
            if !solvers.contains(&solver) && shared.iter().all(|(problem, _)| has(problem, &solver)) {
                solvers.push(solver);
            }
        }
        if shared.len() < 2 || solvers.len() < 2 {
            return None;
        }
        let times = |by: By| -> Vec<Vec<Option<f64>>> {
            let time = |solver: &String, problem: &Problem, target: Target| {
                let subject = problem.subjects.iter().find(|subject| name(subject) == *solver)?;
                target.median(subject, by)
            };
            let of = |solver: &String| shared.iter().map(|(problem, target)| time(solver, problem, *target)).collect();
            solvers.iter().map(of).collect()
        };
        let (steps, seconds) = (times(By::Step), times(By::Seconds));
        Some(Self {
            problems: shared.iter().map(|(problem, target)| format!("{} ({})", problem.title, target.text())).collect(),
            decided: (0..shared.len()).filter(|i| steps.iter().any(|times| times[*i].is_some())).count(),
            steps: stats::performance_profiles(&steps),
            seconds: stats::performance_profiles(&seconds),
            had_neighbours: shared.iter().any(|(problem, _)| problem.had_neighbours()),
            solvers,
        })
    }

    /// Who has the highest score, in a sentence or two: by steps, and by training time where that depends on nothing else.
    pub fn answer(&self) -> Option<String> {
        let (names, score) = self.soonest(&self.steps)?;
        let (problems, decided) = (self.problems.len(), self.decided);
        // A problem on which nobody reaches the target says nothing of who is sooner, though it lowers all scores.
        let (place, most) = match decided {
            all if all == problems => (format!("Over the {problems} problems, "), "1".to_owned()),
            some => (
                format!(
                    "Only on {some} of the {problems} problems did any group that took part in all reach the target, by the median of its seeds. There, "
                ),
                format!("{:.3}", some as f64 / problems as f64),
            ),
        };
        let mut text = match names.as_slice() {
            [name] => format!(
                "{place}{name} is soonest at the target by steps: its performance score is {score:.3}, of at most {most}."
            ),
            names => format!(
                "{place}none is soonest at the target by steps: {} share the highest performance score, {score:.3}.",
                names.join(", ")
            ),
        };
        if let (Some((names, score)), false) = (self.soonest(&self.seconds), self.had_neighbours) {
            text += &format!(" By training time the highest score is {score:.3}, of {}.", names.join(", "));
        }
        Some(text)
    }

    /// All that have the highest score above 0, and the score.
    fn soonest(&self, profiles: &[Profile]) -> Option<(Vec<&str>, f64)> {
        let highest = profiles.iter().map(|profile| profile.score).fold(0.0, f64::max);
        // Scores are sums of many numbers, and what prints alike is alike.
        let is_highest = |(_, profile): &(&String, &Profile)| (profile.score - highest).abs() < 5e-4;
        let names = self.solvers.iter().zip(profiles).filter(is_highest).map(|(name, _)| name.as_str());
        (highest > 0.0).then(|| (names.collect(), highest))
    }

    /// The picture.
    pub fn figure(&self) -> Figure {
        let panel = |title: &str, profiles: &[Profile]| {
            let curve = |(style, profile): (usize, &Profile)| {
                let points = profile.tau.iter().zip(&profile.rho).map(|(&x, &y)| Point { x, y, band: None });
                Curve { style, points: points.collect(), drawn: Drawn::Steps }
            };
            Panel {
                title: title.to_owned(),
                x: Axis { range: Some([1.0, 4.0]), ..Axis::linear("τ: time over that of the soonest") },
                y: Axis { range: Some([0.0, 1.03]), ..Axis::linear("share of the problems") },
                curves: profiles.iter().enumerate().take(STYLES).map(curve).collect(),
                ..Panel::default()
            }
        };
        let names = self.solvers.iter().enumerate().take(STYLES).map(|(style, name)| (name.as_str(), style));
        Figure {
            title: "Performance profiles".to_owned(),
            rows: vec![Row {
                title: String::new(),
                panels: vec![panel("by steps", &self.steps), panel("by training time", &self.seconds)],
                legend: keys(names, Drawn::Steps),
            }],
        }
    }

    /// What the picture shows.
    pub fn caption(&self) -> String {
        let left_out = self.solvers.len().saturating_sub(STYLES);
        let left_out = if left_out == 0 { String::new() } else { format!(" {left_out} more are in the table alone.") };
        format!(
            "ρ(τ), the share of the problems on which the median time to the target is at most τ times that of the soonest, of what took part \
             in all of these problems: {}. One that nobody solves counts for nobody.{}{left_out}",
            self.problems.join("; "),
            if self.had_neighbours { NEIGHBOURS } else { "" }
        )
    }

    /// The table of scores.
    pub fn table(&self) -> Markup {
        let row = |((name, steps), seconds): ((&String, &Profile), &Profile)| {
            vec![Cell::new(name), Cell::new(format!("{:.3}", steps.score)), Cell::new(format!("{:.3}", seconds.score))]
        };
        let rows: Vec<_> = self.solvers.iter().zip(&self.steps).zip(&self.seconds).map(row).collect();
        table(
            "Performance scores",
            &["", ">by steps", ">by training time"],
            &rows,
            "The score is the integral of ρ from τ = 1 to 4, over 3 (AlgoPerf): 1 for what is soonest on every problem, 0 for what never \
             reaches a target within four times the best time.",
        )
    }
}

/// What a group is, apart from its problem: by its factors, and by its run too where a problem has two groups of the same.
fn namer(problems: &[Problem]) -> impl Fn(&Subject) -> String {
    let factors = |subject: &Subject| {
        let factors = subject.config.factors.iter().filter(|(name, _)| *name != "dataset" && *name != "model");
        let name = factors.map(|(name, value)| aspect(name, value)).collect::<Vec<_>>().join(", ");
        if name.is_empty() { subject.config.name.clone() } else { name }
    };
    let is_unique = problems.iter().all(|problem| {
        let names: BTreeSet<String> = problem.subjects.iter().map(|subject| factors(subject)).collect();
        names.len() == problem.subjects.len()
    });
    move |subject| {
        let run = subject.name.strip_suffix(&subject.config.name).filter(|_| !is_unique).unwrap_or_default();
        format!("{run}{}", factors(subject))
    }
}
