//! How soon a target is reached, and who is soonest over many problems.

use super::{
    Targets,
    curves::By,
    html::{Cell, keys, table},
    number,
    results::ranking,
    subject::{Problem, Subject, Trial, aspect},
};
use crate::{
    plot::{Axis, Curve, Drawn, Figure, Panel, Point, Row, STYLES},
    record::{Metric, Run},
    stats::{self, Profile},
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
    /// the mean loss at the end.
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
        let ends: Vec<f64> = ranking(problem).iter().filter_map(|subject| subject.summary.loss.mean).collect();
        let value = stats::median(&ends).filter(|value| value.is_finite());
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
    let origin = if target.is_given {
        ""
    } else {
        " No target was set, so this one follows from the results: the median over the groups of their mean test loss at the end. It \
         tells how soon groups come to what is usual here, and is no test of which is better."
    };
    table(
        &format!("Time to a {}, {}", target.text(), problem.title),
        &["group", ">reached by", ">steps", ">training time"],
        &rows,
        &format!(
            "The first evaluation at or past the target: the median over the trials, of which those that never reach it count as slower \
             than all others; below it the range of those that do. Evaluations are some steps apart, so times are no finer than \
             that.{origin}"
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
    /// By steps.
    steps: Vec<Profile>,
    /// By training time.
    seconds: Vec<Profile>,
}

impl Profiles {
    /// The profiles of what stands for itself on at least two problems; none where there are no two.
    pub fn of(problems: &[Problem], given: &Targets, runs: &[Run]) -> Option<Self> {
        let targets: Vec<(&Problem, Target)> =
            problems.iter().filter_map(|problem| Some((problem, *Target::of(problem, given, runs).first()?))).collect();
        let mut solvers: Vec<String> = Vec::new();
        for subject in targets.iter().flat_map(|(problem, _)| &problem.subjects) {
            let name = solver(subject);
            if !solvers.contains(&name) {
                solvers.push(name);
            }
        }
        if targets.len() < 2 || solvers.len() < 2 {
            return None;
        }
        let times = |by: By| -> Vec<Vec<Option<f64>>> {
            let time = |name: &String, problem: &Problem, target: Target| {
                let subject = problem.subjects.iter().find(|subject| solver(subject) == *name)?;
                target.median(subject, by)
            };
            let of = |name: &String| targets.iter().map(|(problem, target)| time(name, problem, *target)).collect();
            solvers.iter().map(of).collect()
        };
        let (steps, seconds) = (times(By::Step), times(By::Seconds));
        let problems =
            targets.iter().map(|(problem, target)| format!("{} ({})", problem.title, target.text())).collect();
        Some(Self {
            solvers,
            problems,
            steps: stats::performance_profiles(&steps),
            seconds: stats::performance_profiles(&seconds),
        })
    }

    /// Who has the highest score, in a sentence.
    pub fn answer(&self) -> Option<String> {
        let scores = self.solvers.iter().zip(&self.seconds).map(|(name, profile)| (name, profile.score));
        let (name, score) = scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, score)| *score > 0.0)?;
        let problems = self.problems.len();
        Some(format!(
            "Over the {problems} problems, {name} is soonest at the target: its performance score by training time is {score:.3}, of at most 1."
        ))
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
            "ρ(τ), the share of the problems on which the median time to the target is at most τ times that of the soonest. Problems: \
             {}. One that nobody solves counts for nobody.{left_out}",
            self.problems.join("; ")
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

/// What a group is, apart from its problem.
fn solver(subject: &Subject) -> String {
    let factors = subject.config.factors.iter().filter(|(name, _)| *name != "dataset" && *name != "model");
    let name = factors.map(|(name, value)| aspect(name, value)).collect::<Vec<_>>().join(", ");
    match subject.name.strip_suffix(&subject.config.name) {
        _ if name.is_empty() => subject.name.clone(),
        Some(run) => format!("{run}{name}"),
        None => name,
    }
}
