//! Schedules of the learning rate above the losses that they led to.

use super::curves;
use crate::{
    record::{metric::Metric, trial::TrialConfig},
    report::{
        facet::{Facet, Member},
        group::{ReportGroup, Trial},
        number,
        page::table,
        plot::figure::{Axis, Curve, Drawn, Figure, Panel, Point, Row},
        problem::Problem,
        samples::{By, PARTS, Sample, evaluations, loss, training},
        table::Cell,
    },
    stats::{self, Estimate},
};
use maud::Markup;
use optim::{Schedule, schedule::Defaults, text::SpecText};

/// The learning rate by step, and below it the losses and the accuracy that it led to, on the same horizontal axis.
pub fn figure(facet: &Facet) -> Figure {
    let rates = Panel {
        title: "learning rate".to_owned(),
        x: By::Step.axis(),
        y: Axis::linear("learning rate"),
        curves: facet.members.iter().map(rates).collect(),
        ..Panel::default()
    };
    let mut panels = [
        rates,
        curves::train_loss(facet, By::Step),
        curves::test_loss(facet, By::Step),
        curves::test_accuracy(facet, By::Step),
    ];
    panels[0].x.range = panels[1].x.range;
    panels.iter_mut().for_each(|panel| panel.is_wide = true);
    let mut rows: Vec<Row> = panels.into_iter().map(one).collect();
    if let Some(last) = rows.last_mut() {
        last.legend = curves::legend_of_evaluations(facet);
    }
    let title = if facet.title.is_empty() { String::new() } else { format!(", {}", facet.title) };
    Figure { title: format!("Schedules and the losses that they led to{title}"), rows }
}

/// What [`figure`] shows.
pub fn caption() -> String {
    format!(
        "The learning rate that each update used, above the training loss, the test loss and the test accuracy on the same axis of steps. \
         Lines are means over the seeds, bands {}; the training loss is averaged over {} equal parts of the run. A cross at the top edge \
         marks where a trial diverged.",
        curves::BANDS,
        PARTS
    )
}

fn one(panel: Panel) -> Row {
    Row { panels: vec![panel], ..Row::default() }
}

/// The learning rates of a group, which are the same for every seed: of the trial that made the most updates.
fn rates(member: &Member) -> Curve {
    let updates = |trial: &Trial| used_rates(trial.metrics).last().map_or(0, |(step, _)| *step);
    let longest = member.group.finals.iter().max_by_key(|trial| updates(trial));
    let points = longest.map_or(Vec::new(), |trial| points(&trial.record.config, &used_rates(trial.metrics)));
    Curve { name: member.label.clone(), style: member.style, points, drawn: Drawn::Steps }
}

/// Updates, counted from 1, with the learning rates that they used, as far as they are recorded.
fn used_rates(metrics: &[Metric]) -> Vec<(u64, f64)> {
    let used = |metric: &Metric| match *metric {
        Metric::Train { step, lr, .. } => Some((step, lr)),
        Metric::Eval { .. } | Metric::Ema { .. } | Metric::Probe { .. } => None,
    };
    metrics.iter().filter_map(used).collect()
}

/// The learning rate of every update. Records are some updates apart, so that they cannot tell where it jumps: the schedule tells, as
/// long as it says what the records do.
fn points(config: &TrialConfig, recorded: &[(u64, f64)]) -> Vec<Point> {
    let lr = SpecText::of(&config.optimizer).get("lr").and_then(|lr| lr.parse().ok());
    let schedule = Schedule::parse(&config.schedule, &Defaults { lr, steps: Some(config.steps) });
    let holds = |schedule: &Schedule| recorded.iter().all(|(step, lr)| schedule.at(step.saturating_sub(1)) == *lr);
    let last = recorded.last().map_or(0, |(step, _)| *step);
    let rates: Vec<(u64, f64)> = match schedule.ok().filter(holds) {
        Some(schedule) => (1..=last).map(|step| (step, schedule.at(step - 1))).collect(),
        None => recorded.to_vec(),
    };
    // An update lasts from the step before it to its own.
    let starts = rates.iter().map(|(step, lr)| (step.saturating_sub(1), *lr));
    let point = |(step, y)| Point { x: step as f64, y, band: None };
    starts.chain(rates.last().copied()).map(point).collect()
}

/// The end loss beside the mean over the curve.
pub fn areas(problem: &Problem) -> Markup {
    let mean = |group: &ReportGroup, samples: &dyn Fn(&[Metric]) -> Vec<Sample>| {
        let trials = group.finals.iter().filter(|trial| trial.outcome().is_some() && !trial.diverged());
        let area = |metrics: &[Metric]| {
            let points: Vec<_> = samples(metrics).iter().map(|sample| (sample.step, sample.value)).collect();
            stats::mean_over_curve(&points).filter(|mean| mean.is_finite())
        };
        Estimate::positive(&trials.filter_map(|trial| area(trial.metrics)).collect::<Vec<_>>())
    };
    let row = |group: &&ReportGroup| {
        let cell = |estimate: &Estimate| Cell::estimate(number::estimate(estimate)).to(group.href());
        vec![
            Cell::new(&group.name).to(group.href()),
            Cell::new(&group.summary.schedule).to(group.href()),
            cell(&group.summary.loss),
            cell(&mean(group, &|metrics| evaluations(metrics, |loss, _| loss))),
            cell(&mean(group, &|metrics| training(metrics, loss))),
        ]
    };
    let rows: Vec<_> = problem.groups.iter().map(row).collect();
    table(
        &format!("End and course of the loss, {}", problem.title),
        &["group", "schedule", ">test loss at the end", ">test loss over the curve", ">training loss over the curve"],
        &rows,
        "Over the curve: the area under the loss by step (trapezoids) over its length, which is low for what is fast early; at the end: what \
         the final model is worth. Means over the seeds that did not diverge, and below them their 95 % confidence intervals (Student's t).",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::operations::Operations;

    const STEPS: u64 = 1000;

    fn config(schedule: &str) -> TrialConfig {
        TrialConfig {
            phase: crate::record::trial::Phase::Final,
            dataset: "digits".to_owned(),
            text_sha256: None,
            model: "mlp".to_owned(),
            optimizer: "sgd:lr=0.1".to_owned(),
            schedule: schedule.to_owned(),
            ema: None,
            lookahead: None,
            clip: None,
            decay_matrices_only: false,
            batch_size: 32,
            steps: STEPS,
            evaluate_every: 20,
            evaluate_on: None,
            augment: Default::default(),
            max_loss: 100.0,
            probe: false,
            device: "cpu".to_owned(),
            ops: Operations::Descent,
            precision: Default::default(),
            seed: 0,
            repeat: None,
        }
    }

    #[test]
    fn every_schedule_is_drawn_as_each_update_used_it() {
        for name in optim::schedule::all().iter().map(|entry| entry.name) {
            let schedule = Schedule::parse(name, &Defaults { lr: Some(0.1), steps: Some(STEPS) }).unwrap();
            let every_ten = (1..=STEPS).filter(|step| *step == 1 || step % 10 == 0);
            let recorded: Vec<(u64, f64)> = every_ten.map(|step| (step, schedule.at(step - 1))).collect();
            let drawn = points(&config(&schedule.to_string()), &recorded);
            let expected =
                (0..STEPS).map(|t| (t as f64, schedule.at(t))).chain([(STEPS as f64, schedule.at(STEPS - 1))]);
            assert_eq!(drawn.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn records_that_no_schedule_explains_are_drawn_as_they_are() {
        for schedule in ["constant:lr=0.2", "of another time"] {
            let drawn = points(&config(schedule), &[(1, 0.1), (10, 0.1), (20, 0.05)]);
            let drawn: Vec<_> = drawn.iter().map(|point| (point.x, point.y)).collect();
            assert_eq!(drawn, [(0.0, 0.1), (9.0, 0.1), (19.0, 0.05), (20.0, 0.05)]);
        }
        assert!(points(&config("constant"), &[]).is_empty());
    }
}
