//! The loss by what groups differ in, where that is numbers: as a heat map of two, or as curves by one.

use crate::report::{
    facet::{aspect, is_of_problem},
    group::ReportGroup,
    number,
    plot::figure::{Axis, Curve, Drawn, Figure, Grid, GridCell, Key, Mark, Panel, Point, Row, Shape},
    plot::style::STYLES,
    problem::Problem,
    ranking::ranking,
};
use optim::text::SpecText;
use std::collections::{BTreeMap, BTreeSet};

/// A heat map has at least so many values of one number; of the other two are enough.
const FEWEST: usize = 3;
/// So many panels stand side by side in a picture.
const SIDE_BY_SIDE: usize = 3;
/// Numbers as far from each other have a logarithmic axis.
const DECADE: f64 = 10.0;
/// A loss of so many times that of a constant prediction, or more, has the darkest colour.
const CAP: f64 = 1.5;

/// A group with what it differs in.
struct Placed<'s, 'a> {
    group: &'s ReportGroup<'a>,
    /// By the name of the factor.
    factors: BTreeMap<String, String>,
}

impl Placed<'_, '_> {
    fn number(&self, name: &str) -> Option<f64> {
        self.factors.get(name)?.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// The factors apart from those in `numbers`, of those that are in `varying`, in a few words.
    fn rest(&self, varying: &[String], numbers: &[&str]) -> String {
        let rest = varying.iter().filter(|name| !numbers.contains(&name.as_str()));
        let words = rest.filter_map(|name| Some(aspect(name, self.factors.get(name)?)));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// The factors of `group`, and its run where there are several. What is a factor of its own is not told by the optimizer too.
fn factors(group: &ReportGroup) -> BTreeMap<String, String> {
    let own = group.config.factors.iter().filter(|(name, _)| !is_of_problem(name));
    let mut factors: BTreeMap<String, String> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(optimizer) = factors.get("optimizer") {
        let mut text = SpecText::of(optimizer);
        let keys: Vec<String> = factors.keys().cloned().collect();
        keys.iter().for_each(|key| _ = text.remove(key));
        factors.insert("optimizer".to_owned(), text.to_string());
    }
    if let Some(run) = group.name.strip_suffix(&group.config.name).filter(|run| !run.is_empty()) {
        factors.insert("run".to_owned(), run.trim_end_matches(": ").to_owned());
    }
    factors
}

/// The picture of `problem` and its caption, where groups differ in numbers. The numbers of `warmup` have sections of their own.
pub fn drawn(problem: &Problem) -> Option<(Figure, String)> {
    if problem.groups.iter().any(|group| group.experiment == "warmup") {
        return None;
    }
    let placed: Vec<Placed> = problem.groups.iter().map(|group| Placed { group, factors: factors(group) }).collect();
    let names: BTreeSet<&String> = placed.iter().flat_map(|placed| placed.factors.keys()).collect();
    let values =
        |name: &str| -> BTreeSet<Option<&String>> { placed.iter().map(|placed| placed.factors.get(name)).collect() };
    let varying: Vec<String> = names.into_iter().filter(|name| values(name).len() > 1).cloned().collect();
    let mut numbers: Vec<(usize, &str)> = varying
        .iter()
        .map(|name| (numbers_of(&placed, name).len(), name.as_str()))
        .filter(|(count, name)| {
            let is_number = |placed: &&Placed| placed.factors.contains_key(*name) && placed.number(name).is_none();
            *count > 1 && !placed.iter().any(|placed| is_number(&placed))
        })
        .collect();
    // A stable sort: of equals the first by name.
    numbers.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    match numbers.as_slice() {
        [(most, x), (_, y), ..] if *most >= FEWEST => Some(heat_map(problem, &placed, &varying, x, y)),
        [(most, x), ..] if *most >= FEWEST || varying.len() > 1 => Some(curves(problem, &placed, &varying, x)),
        _ => None,
    }
}

/// The numbers that a factor has, in order.
fn numbers_of<'p, 's: 'p, 'a: 's>(placed: impl IntoIterator<Item = &'p Placed<'s, 'a>>, name: &str) -> Vec<f64> {
    let mut numbers: Vec<f64> = placed.into_iter().filter_map(|placed| placed.number(name)).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    numbers
}

/// A factor's name as an axis has it.
fn label(name: &str) -> String {
    name.replace('_', " ")
}

fn heat_map(problem: &Problem, all: &[Placed], varying: &[String], x: &str, y: &str) -> (Figure, String) {
    let mut panels: Vec<(String, Vec<&Placed>)> = Vec::new();
    for placed in all.iter().filter(|placed| placed.number(x).is_some() && placed.number(y).is_some()) {
        let rest = placed.rest(varying, &[x, y]);
        match panels.iter_mut().find(|(other, _)| *other == rest) {
            Some((_, members)) => members.push(placed),
            None => panels.push((rest, vec![placed])),
        }
    }
    let losses = all.iter().filter_map(|placed| placed.group.summary.loss.mean).filter(|loss| *loss > 0.0);
    let (least, greatest) = losses.fold((f64::INFINITY, 0.0f64), |(a, b), loss| (a.min(loss), b.max(loss)));
    let constant = problem.groups.iter().filter_map(|group| group.workload).map(|workload| workload.constant_loss);
    let cap = constant.reduce(f64::max).map_or(f64::INFINITY, |constant| constant * CAP);
    let greatest = greatest.min(cap).max(least);
    let shade = |loss: f64| if greatest > least { (loss / least).ln() / (greatest / least).ln() } else { 0.0 };
    let ranked = ranking(problem);
    let panels: Vec<Panel> = panels
        .into_iter()
        .map(|(title, members)| {
            let [columns, rows] = [x, y].map(|name| numbers_of(members.iter().copied(), name));
            let best = ranked.iter().find(|group| members.iter().any(|placed| placed.group.is(group)));
            let cell = |placed: &&Placed| {
                let group = placed.group;
                let place = |values: &[f64], name: &str| {
                    values.iter().position(|value| Some(*value) == placed.number(name)).unwrap_or_default()
                };
                GridCell {
                    column: place(&columns, x),
                    row: place(&rows, y),
                    text: group.summary.loss.mean.map_or("diverged".to_owned(), number::number),
                    shade: group.summary.loss.mean.map(shade),
                    is_best: best.is_some_and(|best| best.is(group)),
                    is_crossed: group.summary.diverged > 0,
                    title: format!("{}: {}", group.name, outcome(group)),
                }
            };
            let short = |values: &[f64]| values.iter().copied().map(number::setting).collect();
            Panel {
                title: if title.is_empty() { "test loss at the end".to_owned() } else { title },
                x: Axis::linear(&label(x)),
                y: Axis::linear(&label(y)),
                grid: Some(Grid {
                    columns: short(&columns),
                    rows: short(&rows),
                    cells: members.iter().map(cell).collect(),
                }),
                ..Panel::default()
            }
        })
        .collect();
    let rows = panels.chunks(SIDE_BY_SIDE).map(|panels| Row { panels: panels.to_vec(), ..Row::default() }).collect();
    let title = format!("Test loss by {} and {}, {}", label(x), label(y), problem.title);
    let left_out = left_out(all, &[x, y]);
    let caption = "The mean test loss at the end over the seeds that did not diverge: the lower, the brighter, on a logarithmic scale that all \
        panels share. A frame is around the first in rank of a panel, by the median, of which diverged trials have the worst. A cross in the \
        corner is a cell of which a trial diverged; a grey cell has no trial that did not. The pointer tells more.";
    (Figure { title, rows }, format!("{caption}{left_out}"))
}

/// What came of `group`, for the pointer.
fn outcome(group: &ReportGroup) -> String {
    let (mean, interval) = number::estimate(&group.summary.loss);
    let loss = mean.map(|mean| match interval {
        Some(interval) => format!("test loss {mean} ({interval})"),
        None => format!("test loss {mean}"),
    });
    let diverged = (group.summary.diverged > 0)
        .then(|| format!("{} of {} trials diverged", group.summary.diverged, group.summary.n));
    loss.into_iter().chain(diverged).collect::<Vec<_>>().join(", ")
}

fn curves(problem: &Problem, all: &[Placed], varying: &[String], x: &str) -> (Figure, String) {
    let mut lines: Vec<(String, Vec<&Placed>)> = Vec::new();
    for placed in all.iter().filter(|placed| placed.number(x).is_some()) {
        let rest = placed.rest(varying, &[x]);
        match lines.iter_mut().find(|(other, _)| *other == rest) {
            Some((_, members)) => members.push(placed),
            None => lines.push((rest, vec![placed])),
        }
    }
    let numbers = numbers_of(all, x);
    let ends = numbers.first().copied().zip(numbers.last().copied());
    let is_logarithmic = ends.is_some_and(|(low, high)| low > 0.0 && high >= DECADE * low);
    let axis = if is_logarithmic { Axis::logarithmic(&label(x)) } else { Axis::linear(&label(x)) };
    let rows = lines.chunks(STYLES).map(|lines| {
        let mut panel = Panel {
            title: "test loss at the end".to_owned(),
            quantity: "test loss".to_owned(),
            is_wide: true,
            x: axis.clone(),
            y: Axis::logarithmic("cross entropy"),
            ..Panel::default()
        };
        for (style, (name, members)) in lines.iter().enumerate() {
            let name = if name.is_empty() { problem.title.clone() } else { name.clone() };
            let mut points: Vec<Point> = Vec::new();
            for (placed, x) in members.iter().filter_map(|placed| Some((placed, placed.number(x)?))) {
                let group = placed.group;
                points.extend(group.summary.loss.mean.map(|y| Point { x, y, band: group.summary.loss.ci95 }));
                if group.summary.diverged > 0 {
                    let title = format!("{}: {}", group.name, outcome(group));
                    panel.marks.push(Mark { title, x, y: None, style, shape: Shape::Cross });
                }
            }
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            panel.curves.push(Curve { name, style, points, drawn: Drawn::Line });
        }
        let names = lines.iter().map(|(name, _)| name.as_str()).zip(0..).filter(|(name, _)| !name.is_empty());
        Row { panels: vec![panel], legend: Key::all(names, Drawn::Line), ..Row::default() }
    });
    let title = format!("Test loss by {}, {}", label(x), problem.title);
    let caption = "The mean test loss at the end over the seeds that did not diverge, with its 95 % confidence interval (Student's t, on a \
        logarithmic scale) as the band. A cross at the top edge marks where a trial diverged.";
    (Figure { title, rows: rows.collect() }, format!("{caption}{}", left_out(all, &[x])))
}

/// How many groups have not all of `numbers`, in words.
fn left_out(all: &[Placed], numbers: &[&str]) -> String {
    match all.iter().filter(|placed| numbers.iter().any(|name| placed.number(name).is_none())).count() {
        0 => String::new(),
        n => format!(
            " Without {} are {n} of {} groups, which are not drawn here.",
            numbers.iter().map(|name| label(name)).collect::<Vec<_>>().join(" or "),
            all.len()
        ),
    }
}
