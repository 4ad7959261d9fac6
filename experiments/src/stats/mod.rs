//! Statistics over seeds, tuning trials, workloads and curves.

mod bootstrap;
mod curve;
mod profile;
mod significance;

pub use bootstrap::{BestOf, bootstrap_mean, expected_best};
pub use curve::{first_reached, mean_over_curve};
pub use profile::{Profile, performance_profiles};
pub use significance::{Comparison, holm, paired_t, share_interval};

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The arithmetic mean; none of no values.
    pub mean: Option<f64>,
    /// The 95 % confidence interval of the mean after Student's t; none of fewer than two values.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// Estimates the mean of independent `values`: `mean ± t(0.975, n - 1) s / sqrt(n)`, with `s` the standard deviation
    /// over n - 1 degrees of freedom.
    pub fn of(values: &[f64]) -> Self {
        let mean = mean(values);
        let ci95 = mean.zip(standard_deviation(values)).map(|(mean, s)| {
            let n = values.len() as f64;
            let t = StudentsT::new(0.0, 1.0, n - 1.0).expect("at least one degree of freedom").inverse_cdf(0.975);
            let half = t * s / n.sqrt();
            [mean - half, mean + half]
        });
        Self { mean, ci95 }
    }
}

/// The arithmetic mean; none of no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation over n - 1 degrees of freedom; none of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The median, between the middle two of an even number; none of no values. Infinite values have their place, so that a
/// trial that never got somewhere can be told by one.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => Some(sorted[middle]),
        _ => Some(sorted.get(middle.checked_sub(1)?)?.midpoint(sorted[middle])),
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The cases of a function in the fixtures, and how near a value must be.
#[cfg(test)]
mod fixture {
    use serde::de::DeserializeOwned;

    /// The cases of `function`.
    pub fn cases<T: DeserializeOwned>(function: &str) -> Vec<T> {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap();
        let cases: Vec<T> = serde_json::from_value(json[function].clone()).unwrap();
        assert!(cases.len() >= 6, "{function} has {} cases", cases.len());
        cases
    }

    /// Panics unless `found` is `expected` to ten digits.
    #[track_caller]
    pub fn assert_near(found: f64, expected: f64) {
        assert_within(found, expected, expected.abs());
    }

    /// Panics unless `found` is `expected` to ten digits of `scale`, for values that are differences of such a size.
    #[track_caller]
    pub fn assert_within(found: f64, expected: f64, scale: f64) {
        assert!(found == expected || (found - expected).abs() <= 1e-10 * scale, "{found} is not {expected}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        #[derive(Deserialize)]
        struct Case {
            values: Vec<f64>,
            mean: f64,
            ci95: [f64; 2],
        }
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/fixtures/estimates.json")).unwrap();
        assert!(cases.len() >= 6);
        for Case { values, mean, ci95 } in cases {
            let estimate = Estimate::of(&values);
            let [low, high] = estimate.ci95.unwrap();
            for (found, expected) in [(estimate.mean.unwrap(), mean), (low, ci95[0]), (high, ci95[1])] {
                let scale = expected.abs().max(ci95[1] - ci95[0]);
                assert!((found - expected).abs() <= 1e-10 * scale, "{values:?}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn one_value_has_no_interval_and_none_has_no_mean() {
        assert_eq!(Estimate::of(&[2.5]), Estimate { mean: Some(2.5), ci95: None });
        assert_eq!(Estimate::of(&[]), Estimate { mean: None, ci95: None });
    }
    #[test]
    fn a_median_agrees_with_numpy() {
        #[derive(Deserialize)]
        struct Case {
            values: Vec<f64>,
            median: f64,
        }
        for Case { values, median: expected } in fixture::cases("median") {
            fixture::assert_near(median(&values).unwrap(), expected);
        }
    }

    #[test]
    fn a_median_may_fall_on_what_never_ended() {
        let never = f64::INFINITY;
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[never, 2.0, 1.0]), Some(2.0));
        assert_eq!(median(&[never, 2.0]), Some(never));
        assert_eq!(median(&[never, 1.0, never]), Some(never));
    }
}
