//! From measurements to curves: smoothed over steps, averaged over seeds.

use crate::report::{
    group::{Facet, Labelled},
    page::keys,
};
use crate::{
    record::metric::Metric,
    report::plot::{Axis, Curve, Drawn, Figure, Mark, Panel, Point, ReferenceLine, Row, Shape},
    stats::{Estimate, mean},
};
use std::collections::BTreeMap;

/// What is noisy is averaged over this many equal parts of the run.
pub const PARTS: u64 = 60;

/// A loss of this many times the first is beyond the axis.
const CAP: f64 = 1.5;

/// The horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Updates.
    Step,
    /// Training time.
    Seconds,
}

impl By {
    /// The axis.
    pub fn axis(self) -> Axis {
        Axis::linear(match self {
            Self::Step => "step",
            Self::Seconds => "training time (s)",
        })
    }
}

/// A value of one trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The same in all trials for values that are averaged.
    pub key: u64,
    /// The updates made.
    pub step: f64,
    /// The training time.
    pub seconds: f64,
    /// The value.
    pub value: f64,
}

/// How the mean over seeds is estimated: for any numbers, for those that cannot be negative, or for shares.
pub type Estimator = fn(&[f64]) -> Estimate;

/// The samples at what all trials have that came so far. A trial that diverges is measured once more at its end, where the others are
/// not: that is no mean of the group.
fn shared(mut trials: Vec<Vec<Sample>>) -> Vec<Vec<Sample>> {
    let ends: Vec<u64> = trials.iter().filter_map(|trial| trial.iter().map(|sample| sample.key).max()).collect();
    let mut having: BTreeMap<u64, usize> = BTreeMap::new();
    trials.iter().flatten().for_each(|sample| *having.entry(sample.key).or_default() += 1);
    let is_shared = |key: u64| having[&key] >= ends.iter().filter(|end| **end >= key).count();
    trials.iter_mut().for_each(|trial| trial.retain(|sample| is_shared(sample.key)));
    trials
}

/// The mean of the samples of one key over the trials that came so far, where it is finite, with its 95 % confidence interval as the
/// band; no point where some of these trials have no sample. Its place is the mean of theirs. By time, where trials leave the mean it
/// goes on from the point before by the mean time that the others took: a slow one that leaves does not turn the time back.
pub fn over_seeds(trials: impl Iterator<Item = Vec<Sample>>, by: By, estimate: Estimator) -> Vec<Point> {
    let mut by_key: BTreeMap<u64, BTreeMap<usize, Sample>> = BTreeMap::new();
    for (trial, samples) in shared(trials.collect()).into_iter().enumerate() {
        for sample in samples.into_iter().filter(|sample| sample.value.is_finite()) {
            by_key.entry(sample.key).or_default().insert(trial, sample);
        }
    }
    let place = |sample: &Sample| if by == By::Step { sample.step } else { sample.seconds };
    let mut points: Vec<Point> = Vec::new();
    let mut before: BTreeMap<usize, Sample> = BTreeMap::new();
    // What is added to the mean time, since trials left.
    let mut shift = 0.0;
    for samples in by_key.into_values() {
        let values: Vec<f64> = samples.values().map(|sample| sample.value).collect();
        let Estimate { mean: y, ci95 } = estimate(&values);
        let Some((own, y)) = mean(&samples.values().map(place).collect::<Vec<_>>()).zip(y) else { continue };
        if let (By::Seconds, Some(last), false) = (by, points.last(), samples.keys().eq(before.keys())) {
            let both = samples.iter().filter_map(|(trial, sample)| Some(place(sample) - place(before.get(trial)?)));
            shift = mean(&both.collect::<Vec<_>>()).map_or((last.x - own).max(0.0), |taken| last.x + taken - own);
        }
        points.push(Point { x: own + shift, y, band: ci95 });
        before = samples;
    }
    points
}

/// What `value` takes from each evaluation.
pub fn evaluations(metrics: &[Metric], value: impl Fn(f64, f64) -> f64) -> Vec<Sample> {
    let sample = |metric: &Metric| match *metric {
        Metric::Eval { step, loss, accuracy, seconds } => {
            Some(Sample { key: step, step: step as f64, seconds, value: value(loss, accuracy) })
        }
        Metric::Train { .. } | Metric::Probe { .. } => None,
    };
    metrics.iter().filter_map(sample).collect()
}

/// What `value` takes from each training line.
pub fn training(metrics: &[Metric], value: impl Fn(&Metric) -> Option<f64>) -> Vec<Sample> {
    let sample = |metric: &Metric| match *metric {
        Metric::Train { step, seconds, .. } => {
            Some(Sample { key: step, step: step as f64, seconds, value: value(metric)? })
        }
        Metric::Eval { .. } | Metric::Probe { .. } => None,
    };
    metrics.iter().filter_map(sample).collect()
}

/// Averages `samples` over `parts` equal parts of `steps`. A part with a value that is not finite has none.
pub fn smoothed(samples: &[Sample], steps: u64, parts: u64) -> Vec<Sample> {
    let length = steps.div_ceil(parts).max(1);
    let mut by_part: BTreeMap<u64, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        by_part.entry((sample.step as u64).saturating_sub(1) / length).or_default().push(*sample);
    }
    let average = |(key, samples): (u64, Vec<Sample>)| {
        let of = |field: fn(&Sample) -> f64| samples.iter().map(field).sum::<f64>() / samples.len() as f64;
        Sample { key, step: of(|s| s.step), seconds: of(|s| s.seconds), value: of(|s| s.value) }
    };
    by_part.into_iter().map(average).collect()
}

/// The training loss of a line.
pub fn loss(metric: &Metric) -> Option<f64> {
    if let Metric::Train { loss, .. } = metric { Some(*loss) } else { None }
}

/// The gradient norm of a line.
pub fn grad_norm(metric: &Metric) -> Option<f64> {
    if let Metric::Train { grad_norm, .. } = metric { *grad_norm } else { None }
}

/// A panel of what `samples` takes from each trial of each group in `facet`, with a cross where a trial diverged. What a logarithmic
/// axis shows cannot be negative.
pub fn panel(title: &str, y: Axis, by: By, facet: &Facet, samples: impl Fn(&[Metric]) -> Vec<Sample>) -> Panel {
    let estimate = if y.logarithmic { Estimate::positive } else { Estimate::of };
    panel_of(title, y, by, facet, samples, estimate, None)
}

fn panel_of(
    title: &str,
    y: Axis,
    by: By,
    facet: &Facet,
    samples: impl Fn(&[Metric]) -> Vec<Sample>,
    estimate: Estimator,
    parts: Option<u64>,
) -> Panel {
    let mut panel = Panel { title: title.to_owned(), x: by.axis(), y, ..Panel::default() };
    for curve in &facet.curves {
        let finals = &curve.subject.finals;
        let trials = finals.iter().map(|trial| samples(trial.metrics)).collect();
        let steps = curve.subject.steps();
        // What is not of the group is left out before it can be averaged with what is.
        let trials = shared(trials).into_iter().map(|trial| match parts {
            Some(parts) => smoothed(&trial, steps, parts),
            None => trial,
        });
        let points = over_seeds(trials, by, estimate);
        for outcome in finals.iter().filter_map(|trial| trial.outcome()).filter(|outcome| outcome.diverged) {
            let x = if by == By::Step { outcome.steps as f64 } else { outcome.seconds };
            panel.marks.push(Mark { x, y: None, style: curve.style, shape: Shape::Cross });
        }
        panel.curves.push(Curve { style: curve.style, points, drawn: Drawn::Line });
    }
    // All panels of a facet have the same horizontal axis, from the start to the end of its runs.
    let end = match by {
        By::Step => facet.curves.iter().map(|curve| curve.subject.steps() as f64).fold(0.0, f64::max),
        By::Seconds => panel.greatest_x(),
    };
    panel.x.range = (end > 0.0).then_some([0.0, end]);
    panel
}

/// An axis of losses: what is far above the first loss is beyond it.
fn loss_axis(facet: &Facet) -> Axis {
    let first = |curve: &Labelled| {
        let trials = curve.subject.finals.iter();
        let guess = curve.subject.workload.map(|workload| (workload.classes as f64).ln());
        let first = trials.filter_map(|trial| trial.metrics.iter().find_map(loss).filter(|loss| loss.is_finite()));
        first.chain(guess).fold(0.0, f64::max)
    };
    let cap = facet.curves.iter().map(first).fold(0.0, f64::max) * CAP;
    Axis { cap: (cap > 0.0).then_some(cap), ..Axis::logarithmic("cross entropy") }
}

/// The least expected loss that any model can reach, where it is known and the same for the whole facet.
fn floor(facet: &Facet) -> Vec<ReferenceLine> {
    let mut floors = facet.curves.iter().map(|curve| curve.subject.workload.and_then(|workload| workload.floor));
    let first = floors.next().flatten().filter(|y| *y > 0.0);
    let same = floors.all(|floor| floor == first);
    first
        .filter(|_| same)
        .map(|y| ReferenceLine { y, label: "entropy: no model does better".to_owned() })
        .into_iter()
        .collect()
}

/// The training loss, averaged over parts of the run.
pub fn train_loss(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| training(metrics, loss);
    let mut panel = panel_of("training loss", loss_axis(facet), by, facet, samples, Estimate::positive, Some(PARTS));
    panel.reference_lines = floor(facet);
    panel
}

/// The test loss.
pub fn test_loss(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| evaluations(metrics, |loss, _| loss);
    let mut panel = panel("test loss", loss_axis(facet), by, facet, samples);
    panel.reference_lines = floor(facet);
    panel
}

/// The test accuracy in percent.
pub fn test_accuracy(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| evaluations(metrics, |_, accuracy| accuracy);
    let axis = Axis { within: Some([0.0, 100.0]), ..Axis::linear("%") };
    let mut panel = panel_of("test accuracy", axis, by, facet, samples, Estimate::share, None);
    for point in panel.curves.iter_mut().flat_map(|curve| &mut curve.points) {
        *point = Point { y: point.y * 100.0, band: point.band.map(|band| band.map(|share| share * 100.0)), ..*point };
    }
    panel
}

/// The norm of the gradient, averaged over parts of the run.
pub fn gradient_norm(facet: &Facet) -> Panel {
    let samples = |metrics: &[Metric]| training(metrics, grad_norm);
    let axis = Axis::logarithmic("L2 norm before clipping");
    panel_of("gradient norm", axis, By::Step, facet, samples, Estimate::positive, Some(PARTS))
}

/// The legend of `facet`.
pub fn legend(facet: &Facet) -> Vec<crate::report::plot::Key> {
    keys(facet.curves.iter().map(|curve| (curve.label.as_str(), curve.style)), Drawn::Line)
}

/// Training loss, test loss and test accuracy, a row per facet.
pub fn figure(title: &str, facets: &[Facet], by: By) -> Figure {
    let row = |facet: &Facet| Row {
        title: facet.title.clone(),
        panels: vec![train_loss(facet, by), test_loss(facet, by), test_accuracy(facet, by)],
        legend: legend(facet),
    };
    Figure { title: title.to_owned(), rows: facets.iter().map(row).collect() }
}

/// What bands are.
pub const BANDS: &str = "the 95 % confidence interval of the mean (Student's t, of losses and norms on a logarithmic scale and of accuracies \
    on that of the logit; none for one seed)";

/// What the curves of [`figure`] are.
pub fn caption(by: By) -> String {
    let place = match by {
        By::Step => "By update.",
        By::Seconds => {
            "By training time without evaluation and saving; a point stands at the mean time of its step over the seeds, \
             and goes on by the time of the others where a trial diverged."
        }
    };
    format!(
        "{place} Lines are means over the seeds that came to the step, bands {BANDS}. The training loss is averaged over {PARTS} equal parts of the run, the test loss is not smoothed. A cross at \
         the top edge marks where a trial diverged, whose curve is in the mean until then; what lies beyond an axis is drawn at \
         its end. Losses have logarithmic axes."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: u64, loss: f64) -> Metric {
        Metric::Train { step, epoch: 0, loss, lr: 0.1, grad_norm: None, seconds: step as f64 / 4.0 }
    }

    fn eval(step: u64, loss: f64, seconds: f64) -> Metric {
        Metric::Eval { step, loss, accuracy: 1.0 / (1.0 + loss), seconds }
    }

    #[test]
    fn a_curve_is_the_mean_over_the_trials_that_have_the_step() {
        let trials = [vec![eval(5, 1.0, 1.0), eval(10, 0.5, 2.0)], vec![eval(5, 3.0, 2.0), eval(10, f64::NAN, 4.0)]];
        let samples = || trials.iter().map(|trial| evaluations(trial, |loss, _| loss));
        let point = |x, y, band| Point { x, y, band };
        for estimate in [Estimate::of as Estimator, Estimate::positive] {
            let ci95 = estimate(&[1.0, 3.0]).ci95;
            assert!(ci95.is_some());
            let by_step = [point(5.0, 2.0, ci95), point(10.0, 0.5, None)];
            assert_eq!(over_seeds(samples(), By::Step, estimate), by_step);
            // The one that goes on takes 1 s.
            let by_time = [point(1.5, 2.0, ci95), point(2.5, 0.5, None)];
            assert_eq!(over_seeds(samples(), By::Seconds, estimate), by_time);
        }
    }

    /// A trial with a loss every tenth step, each of which takes a time of `pace`; it ends at `last`, at which it is measured as well.
    fn paced(pace: f64, last: u64) -> Vec<Metric> {
        let steps = (1..=last).filter(|step| step.is_multiple_of(10) || *step == last);
        let loss = |step: u64| if step.is_multiple_of(10) { 1.0 } else { 7.0 };
        let line = |step: u64| match train(step, loss(step)) {
            Metric::Train { epoch, loss, lr, grad_norm, .. } => {
                Metric::Train { step, epoch, loss, lr, grad_norm, seconds: step as f64 * pace }
            }
            other => other,
        };
        steps.map(line).collect()
    }

    #[test]
    fn what_only_a_diverged_trial_measured_is_no_mean_of_the_group() {
        // The last of them diverge off the grid of the others: in a part of its own, and in one that others have.
        let trials = [paced(1.0, 120), paced(2.0, 120), paced(3.0, 96), paced(9.0, 51)];
        let whole = shared(trials.iter().map(|trial| training(trial, loss)).collect());
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [12, 12, 9, 5]);
        for parts in [40, 12, 5] {
            for by in [By::Step, By::Seconds] {
                let trials = whole.iter().map(|trial| smoothed(trial, 120, parts));
                let points = over_seeds(trials, by, Estimate::of);
                assert_eq!(points.len() as u64, parts.min(12), "{by:?}");
                assert!(points.iter().all(|point| point.y == 1.0 && point.band.is_some()), "{by:?}: {points:?}");
                assert!(points.is_sorted_by(|a, b| a.x < b.x), "{by:?}: {points:?}");
            }
        }
        // Without parts too, as the losses of the test are.
        let points = over_seeds(trials.iter().map(|trial| training(trial, loss)), By::Seconds, Estimate::of);
        let places: Vec<f64> = points.iter().map(|point| point.x).collect();
        // By hand: 10 steps take 37.5 s of four trials, 20 s of three, 15 s of two.
        let expected = [37.5, 75.0, 112.5, 150.0, 187.5, 207.5, 227.5, 247.5, 267.5, 282.5, 297.5, 312.5];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_is_smoothed_is_averaged_over_equal_parts() {
        let trial: Vec<Metric> = (1..=PARTS * 10).map(|step| train(step, step as f64)).collect();
        let parts = smoothed(&training(&trial, loss), PARTS * 10, PARTS);
        assert_eq!(parts.len() as u64, PARTS);
        assert_eq!(parts[1], Sample { key: 1, step: 15.5, seconds: 15.5 / 4.0, value: 15.5 });
        // A trial that ended early has the same parts, and a part that diverged has no finite value.
        let early = [train(1, 2.0), train(10, 4.0), train(11, f64::NAN)];
        let parts = smoothed(&training(&early, loss), PARTS * 10, PARTS);
        assert_eq!(parts[0], Sample { key: 0, step: 5.5, seconds: 5.5 / 4.0, value: 3.0 });
        assert!(parts[1].key == 1 && parts[1].value.is_nan());
        assert!(smoothed(&[], 0, PARTS).is_empty());
    }
}
