//! From the measurements of trials to points of curves: smoothed over steps, averaged over seeds.

use super::plot::figure::{Axis, Point};
use crate::{
    record::metric::Metric,
    stats::{Estimate, mean},
};
use std::collections::BTreeMap;

/// What is noisy is averaged over this many equal parts of the run.
pub const PARTS: u64 = 60;

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
pub fn shared(mut trials: Vec<Vec<Sample>>) -> Vec<Vec<Sample>> {
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
        Metric::Train { .. } | Metric::Ema { .. } | Metric::Probe { .. } => None,
    };
    metrics.iter().filter_map(sample).collect()
}

/// What `value` takes from each evaluation with averaged weights.
pub fn averages(metrics: &[Metric], value: impl Fn(f64, f64) -> f64) -> Vec<Sample> {
    let sample = |metric: &Metric| match *metric {
        Metric::Ema { step, loss, accuracy, seconds } => {
            Some(Sample { key: step, step: step as f64, seconds, value: value(loss, accuracy) })
        }
        Metric::Train { .. } | Metric::Eval { .. } | Metric::Probe { .. } => None,
    };
    metrics.iter().filter_map(sample).collect()
}

/// What `value` takes from each training line.
pub fn training(metrics: &[Metric], value: impl Fn(&Metric) -> Option<f64>) -> Vec<Sample> {
    let sample = |metric: &Metric| match *metric {
        Metric::Train { step, seconds, .. } => {
            Some(Sample { key: step, step: step as f64, seconds, value: value(metric)? })
        }
        Metric::Eval { .. } | Metric::Ema { .. } | Metric::Probe { .. } => None,
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
