//! Schedules of the learning rate above the losses that they led to.

use super::{
    curves::{self, By, Sample},
    html::{Cell, table},
    number,
    subject::{Facet, Problem, Subject},
};
use crate::{
    plot::{Axis, Figure, Panel, Row},
    record::Metric,
    stats::{self, Estimate},
};
use maud::Markup;

/// A schedule is drawn with at most this many points.
const POINTS: usize = 400;

/// The learning rate by step, and below it the training and the test loss, on the same horizontal axis.
pub fn figure(facet: &Facet) -> Figure {
    let rate = |metric: &Metric| if let Metric::Train { lr, .. } = metric { Some(*lr) } else { None };
    let rates = curves::panel("learning rate", Axis::linear("learning rate"), By::Step, facet, |_, metrics| {
        thinned(curves::training(metrics, rate))
    });
    let mut panels = [rates, curves::train_loss(facet, By::Step), curves::test_loss(facet, By::Step)];
    let steps = facet.curves.iter().map(|curve| curve.subject.steps()).max().unwrap_or(0).max(1);
    panels.iter_mut().for_each(|panel| panel.x.range = Some([0.0, steps as f64]));
    panels[0].marks.clear();
    let mut rows: Vec<Row> = panels.into_iter().map(one).collect();
    if let Some(last) = rows.last_mut() {
        last.legend = curves::legend(facet);
    }
    let title = if facet.title.is_empty() { String::new() } else { format!(", {}", facet.title) };
    Figure { title: format!("Schedules and the losses that they led to{title}"), rows }
}

/// What [`figure`] shows.
pub const CAPTION: &str = "The learning rate that each update used, as recorded, above the training loss and the test loss on the same \
    axis of steps. Losses are means over the seeds with the 95 % confidence interval of the mean (Student's t) as the band; the training \
    loss is averaged over 60 equal parts of the run. A cross at the top edge marks where a trial diverged.";

fn one(panel: Panel) -> Row {
    Row { panels: vec![panel], ..Row::default() }
}

/// Every few of `samples`, and the last.
fn thinned(samples: Vec<Sample>) -> Vec<Sample> {
    let every = samples.len().div_ceil(POINTS).max(1);
    let last = samples.len().saturating_sub(1);
    let kept = samples.into_iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last);
    kept.map(|(_, sample)| sample).collect()
}

/// The end loss beside the mean over the curve.
pub fn areas(problem: &Problem) -> Markup {
    let mean = |subject: &Subject, samples: &dyn Fn(&[Metric]) -> Vec<Sample>| {
        let trials = subject.finals.iter().filter(|trial| trial.outcome().is_some() && !trial.diverged());
        let area = |metrics: &[Metric]| {
            let points: Vec<_> = samples(metrics).iter().map(|sample| (sample.step, sample.value)).collect();
            stats::mean_over_curve(&points).filter(|mean| mean.is_finite())
        };
        Estimate::positive(&trials.filter_map(|trial| area(trial.metrics)).collect::<Vec<_>>())
    };
    let row = |subject: &&Subject| {
        let cell = |estimate: &Estimate| {
            let (mean, interval) = number::estimate(estimate);
            Cell::new(mean.unwrap_or(number::NONE.to_owned())).to(subject.href()).note(interval)
        };
        vec![
            Cell::new(&subject.name).to(subject.href()),
            Cell::new(&subject.summary.schedule).to(subject.href()),
            cell(&subject.summary.loss),
            cell(&mean(subject, &|metrics| curves::evaluations(metrics, |loss, _| loss))),
            cell(&mean(subject, &|metrics| curves::training(metrics, curves::loss))),
        ]
    };
    let rows: Vec<_> = problem.subjects.iter().map(row).collect();
    table(
        &format!("End and course of the loss, {}", problem.title),
        &["group", "schedule", ">test loss at the end", ">test loss over the curve", ">training loss over the curve"],
        &rows,
        "Over the curve: the area under the loss by step (trapezoids) over its length, which is low for what is fast early; at the end: what \
         the final model is worth. Means over the seeds that did not diverge, and below them their 95 % confidence intervals (Student's t).",
    )
}
