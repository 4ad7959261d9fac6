//! How hyperparameters were chosen: the loss by learning rate, and what a smaller budget would have found.

use super::curves;
use crate::{
    random::{Purpose, stream},
    report::{
        facet::{Facet, Member, facets},
        group::{ReportGroup, Trial},
        number,
        page::table,
        plot::figure::{Axis, Curve, Drawn, Figure, Mark, Panel, Point, Row, Shape},
        problem::Problem,
        table::Cell,
    },
    stats::{self, BestOf},
};
use maud::Markup;
use std::collections::BTreeMap;

/// The seed of the bootstrap: the report is a function of the records.
const SEED: u64 = 0;

/// Whether any group of `problem` was tuned.
pub fn is_tuned(problem: &Problem) -> bool {
    problem.groups.iter().any(|group| !group.tuning.is_empty())
}

/// The sensitivity to the learning rate beside the expected best of k trials.
pub fn figure(problem: &Problem) -> Figure {
    let tuned: Vec<&ReportGroup> = problem.groups.iter().copied().filter(|group| !group.tuning.is_empty()).collect();
    let row = |facet: &Facet| Row {
        title: facet.title.clone(),
        panels: vec![sensitivity(facet), best_of(facet)],
        legend: curves::legend(facet),
    };
    Figure { title: format!("Tuning, {}", problem.title), rows: facets(&tuned).iter().map(row).collect() }
}

/// What [`figure`] shows.
pub const CAPTION: &str = "Left: the validation loss at the end of each tuning trial by its peak learning rate; trials that differ in \
    nothing else are joined (by the mean where there are several at a rate). A cross at the top edge is a trial that diverged; a \
    ring is what was picked. Right: the expected best validation loss of k trials drawn at random with replacement from those made, \
    and as the band the middle 95 % of that over 2,000 resamples of them: how much the curve hangs on single trials. That is no confidence \
    band, since the points of a space are spread evenly (Sobol) and not drawn independently. A diverged trial counts as the worst \
    that ended. Who leads at small k is easy to tune, in the space that was searched. Trials that a search stopped early (--tune-steps) are in \
    neither.";

/// The learning rate of `trial`.
pub fn learning_rate(trial: Trial) -> Option<f64> {
    trial.hyperparameter("lr")?.parse().ok()
}

fn sensitivity(facet: &Facet) -> Panel {
    let mut panel = Panel {
        title: "validation loss by learning rate".to_owned(),
        quantity: "validation loss".to_owned(),
        x: Axis::logarithmic("learning rate"),
        y: Axis::logarithmic("cross entropy"),
        ..Panel::default()
    };
    for member in &facet.members {
        let mut by_rate: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for trial in &member.group.tuning {
            let Some(x) = learning_rate(*trial).filter(|x| *x > 0.0) else { continue };
            match trial.final_loss().filter(|y| y.is_finite()) {
                Some(y) => {
                    // A positive f64 sorts as its bits do.
                    by_rate.entry(x.to_bits()).or_default().push(y);
                    if is_picked(*trial, member.group) {
                        let title = format!(
                            "{}: picked, learning rate {}, validation loss {}",
                            member.label,
                            number::setting(x),
                            number::number(y)
                        );
                        panel.marks.push(Mark { title, x, y: Some(y), style: member.style, shape: Shape::Ring });
                    }
                }
                None if trial.stopped() => {}
                None => {
                    let title = format!("{}: diverged, learning rate {}", member.label, number::setting(x));
                    panel.marks.push(Mark { title, x, y: None, style: member.style, shape: Shape::Cross })
                }
            }
        }
        let points: Vec<Point> = by_rate
            .iter()
            .flat_map(|(x, ys)| ys.iter().map(|&y| Point { x: f64::from_bits(*x), y, band: None }))
            .collect();
        let is_joined = varied(member.group).iter().all(|key| key == "lr");
        if is_joined {
            let mean =
                |(x, ys): (&u64, &Vec<f64>)| Some(Point { x: f64::from_bits(*x), y: stats::mean(ys)?, band: None });
            let means = by_rate.iter().filter_map(mean).collect();
            panel.curves.push(Curve { name: String::new(), style: member.style, points: means, drawn: Drawn::Line });
        }
        panel.curves.push(Curve { name: member.label.clone(), style: member.style, points, drawn: Drawn::Markers });
    }
    panel
}

fn best_of(facet: &Facet) -> Panel {
    let curve = |member: &Member| {
        let whole = member.group.tuning.iter().filter(|trial| !trial.stopped());
        let losses = whole.map(|trial| trial.final_loss().unwrap_or(f64::INFINITY));
        let point = |best: BestOf| Point { x: best.k as f64, y: best.mean, band: Some(best.spread) };
        let rng = stream(SEED, Purpose::Bootstrap, 0);
        let points = stats::expected_best(&losses.collect::<Vec<_>>(), true, rng).into_iter().map(point).collect();
        Curve { name: member.label.clone(), style: member.style, points, drawn: Drawn::Line }
    };
    Panel {
        title: "expected best of k trials".to_owned(),
        quantity: "expected best validation loss".to_owned(),
        x: Axis::linear("k"),
        y: Axis::logarithmic("cross entropy"),
        curves: facet.members.iter().map(curve).collect(),
        ..Panel::default()
    }
}

/// The hyperparameters that differ between the tuning trials.
pub fn varied(group: &ReportGroup) -> Vec<String> {
    let keys = group.summary.hyperparameters.keys();
    let is_varied = |key: &&String| {
        let mut values = group.tuning.iter().map(|trial| trial.hyperparameter(key));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    keys.filter(is_varied).cloned().collect()
}

/// Hyperparameters with their values: `lr=0.001, weight_decay=0`.
pub fn setting_list<'k>(values: impl Iterator<Item = (&'k str, String)>) -> String {
    let short = |value: String| value.parse().map(number::setting).unwrap_or(value);
    values.map(|(key, value)| format!("{key}={}", short(value))).collect::<Vec<_>>().join(", ")
}

/// How many tuning trials were stopped early, if any.
pub fn stopped_early(group: &ReportGroup) -> Option<String> {
    let stopped = group.tuning.iter().filter(|trial| trial.stopped()).count();
    (stopped > 0).then(|| format!("{stopped} stopped early"))
}

/// Whether `trial` has the hyperparameters that its group was then trained with.
fn is_picked(trial: Trial, group: &ReportGroup) -> bool {
    varied(group).iter().all(|key| {
        let (Some(tried), Some(picked)) = (trial.hyperparameter(key), group.summary.hyperparameters.get(key)) else {
            return false;
        };
        match picked.as_f64() {
            Some(picked) => tried.parse() == Ok(picked),
            None => picked.as_str().map_or(picked.to_string(), str::to_owned) == tried,
        }
    })
}

/// What was picked.
pub fn picked(problem: &Problem) -> Markup {
    let row = |group: &&&ReportGroup| {
        let keys = varied(group);
        let value = |value: &serde_json::Value| match (value.as_f64(), value.as_str()) {
            (Some(number), _) => number::setting(number),
            (None, Some(text)) => text.to_owned(),
            (None, None) => value.to_string(),
        };
        let picked = keys.iter().filter_map(|key| Some((key.as_str(), value(group.summary.hyperparameters.get(key)?))));
        let picked = setting_list(picked);
        let losses = group.tuning.iter().filter_map(|trial| Some((trial.final_loss()?, trial)));
        let best = match losses.min_by(|(a, _), (b, _)| a.total_cmp(b)) {
            Some((loss, trial)) => Cell::new(number::number(loss)).to(trial.href()),
            None => Cell::new(number::NONE),
        };
        let diverged = group.tuning.iter().filter(|trial| trial.diverged()).count();
        let searched = group.summary.searched.as_ref();
        let at_edge = group.at_edge();
        let at_edge = (!at_edge.is_empty()).then(|| format!("{} at the edge", at_edge.join(", ")));
        vec![
            Cell::new(&group.name).to(group.href()),
            Cell::new(&group.config.optimizer),
            Cell::new(searched.map_or(number::NONE.to_owned(), |searched| searched.space.replace(',', ", "))),
            Cell::new(if picked.is_empty() { number::NONE } else { &picked }).to(group.href()).note(at_edge),
            Cell::new(group.tuning.len().to_string()).to(group.href()).note(stopped_early(group)),
            Cell::new(diverged.to_string()).to(group.href()),
            best,
        ]
    };
    let rows: Vec<_> = problem.groups.iter().filter(|group| !group.tuning.is_empty()).collect();
    let rows: Vec<_> = rows.iter().map(row).collect();
    table(
        &format!("Picked by tuning, {}", problem.title),
        &["group", "before", "searched", "picked", ">trials", ">diverged", ">best validation loss"],
        &rows,
        "What tuning varied and what the final trials were trained with. At the edge: within a twentieth of an end of what was searched, on a \
         logarithmic scale, so that a better value may lie outside; --space widens it. Tuning trials train on a part of the training data and are \
         judged by the rest; the test data has no part in it.",
    )
}
