//! Who is soonest over many problems.

use super::target::{NEIGHBOURS, Target};
use crate::{
    config::targets::Targets,
    record::run::Run,
    report::{
        facet::{aspect, is_of_problem},
        group::ReportGroup,
        page::table,
        plot::{
            figure::{Axis, Curve, Drawn, Figure, Key, Panel, Point, Row},
            style::STYLES,
        },
        problem::Problem,
        samples::By,
        table::Cell,
    },
    stats::{self, Profile},
};
use maud::Markup;
use std::collections::BTreeSet;

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
        let has = |problem: &Problem, solver: &String| problem.groups.iter().any(|group| name(group) == *solver);
        let targets = problems.iter().filter_map(|problem| Some((problem, *Target::of(problem, given, runs).first()?)));
        let shared: Vec<(&Problem, Target)> = targets.filter(|(problem, _)| problem.groups.len() > 1).collect();
        let mut solvers: Vec<String> = Vec::new();
        for group in shared.first().map(|(problem, _)| &problem.groups).into_iter().flatten() {
            let solver = name(group);
            if !solvers.contains(&solver) && shared.iter().all(|(problem, _)| has(problem, &solver)) {
                solvers.push(solver);
            }
        }
        if shared.len() < 2 || solvers.len() < 2 {
            return None;
        }
        let times = |by: By| -> Vec<Vec<Option<f64>>> {
            let time = |solver: &String, problem: &Problem, target: Target| {
                let group = problem.groups.iter().find(|group| name(group) == *solver)?;
                target.median(group, by)
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
                Curve { name: self.solvers[style].clone(), style, points: points.collect(), drawn: Drawn::Steps }
            };
            Panel {
                title: title.to_owned(),
                quantity: "share of the problems".to_owned(),
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
                legend: Key::all(names, Drawn::Steps),
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
fn namer(problems: &[Problem]) -> impl Fn(&ReportGroup) -> String {
    let factors = |group: &ReportGroup| {
        let factors = group.config.factors.iter().filter(|(name, _)| !is_of_problem(name));
        let name = factors.map(|(name, value)| aspect(name, value)).collect::<Vec<_>>().join(", ");
        if name.is_empty() { group.config.name.clone() } else { name }
    };
    let is_unique = problems.iter().all(|problem| {
        let names: BTreeSet<String> = problem.groups.iter().map(|group| factors(group)).collect();
        names.len() == problem.groups.len()
    });
    move |group| {
        let run = group.name.strip_suffix(&group.config.name).filter(|_| !is_unique).unwrap_or_default();
        format!("{run}{}", factors(group))
    }
}
