//! Means with their confidence intervals.

use super::descriptive::{mean, standard_deviation};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The arithmetic mean; none of no values.
    pub mean: Option<f64>,
    /// The 95 % confidence interval of the mean, after Student's t; none of fewer than two values.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// Estimates the mean of independent `values` that may be any numbers: `mean ± t(0.975, n - 1) s / sqrt(n)`, with `s` the
    /// standard deviation over n - 1 degrees of freedom.
    pub fn of(values: &[f64]) -> Self {
        Self::on(values, |mean, half| [mean - half, mean + half])
    }

    /// Estimates the mean of `values` that cannot be negative, such as losses and times, by the delta method on a logarithmic
    /// scale: `mean exp(± h / mean)`, where `h` is half the width of [`Estimate::of`]. So it never reaches below 0; where `h` is
    /// small against the mean the two agree.
    pub fn positive(values: &[f64]) -> Self {
        Self::on(values, |mean, half| {
            let factor = (half / mean).exp();
            [mean / factor, mean * factor]
        })
    }

    /// Estimates the mean of `values` that are shares, such as accuracies, by the delta method on the scale of
    /// `logit(x) = ln(x / (1 - x))`: `logit(mean) ± h / (mean (1 - mean))`, taken back, where `h` is half the width of
    /// [`Estimate::of`]. So it stays between 0 and 1.
    pub fn share(values: &[f64]) -> Self {
        Self::on(values, |mean, half| {
            let width = half / (mean * (1.0 - mean));
            // exp(logit) is the odds; no difference of numbers near 1 is formed.
            [-width, width].map(|shift| {
                let odds = shift.exp() * (mean / (1.0 - mean));
                if odds.is_finite() { odds / (1.0 + odds) } else { 1.0 }
            })
        })
    }

    /// `interval` of the mean and half the width of its interval on the scale of the values. Without spread the interval is the
    /// mean alone, also at the ends of a scale.
    fn on(values: &[f64], interval: impl Fn(f64, f64) -> [f64; 2]) -> Self {
        let mean = mean(values);
        let ci95 = mean.zip(standard_deviation(values)).map(|(mean, s)| {
            let n = values.len() as f64;
            let half = t_quantile(0.975, values.len() - 1) * s / n.sqrt();
            if half > 0.0 { interval(mean, half) } else { [mean; 2] }
        });
        Self { mean, ci95 }
    }
}

/// The quantile `q` of Student's t with some degrees of freedom, at least one.
pub fn t_quantile(q: f64, freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom as f64).expect("at least one degree of freedom").inverse_cdf(q)
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
        let estimates: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/estimates.json")).unwrap();
        for (kind, estimate) in [
            ("of", Estimate::of as fn(&[f64]) -> Estimate),
            ("positive", Estimate::positive),
            ("share", Estimate::share),
        ] {
            let cases: Vec<Case> = serde_json::from_value(estimates[kind].clone()).unwrap();
            assert!(cases.len() >= 6);
            for Case { values, mean, ci95 } in cases {
                let estimate = estimate(&values);
                let [low, high] = estimate.ci95.unwrap();
                for (found, expected) in [(estimate.mean.unwrap(), mean), (low, ci95[0]), (high, ci95[1])] {
                    let scale = expected.abs().max(ci95[1] - ci95[0]);
                    assert!((found - expected).abs() <= 1e-10 * scale, "{kind} {values:?}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn no_interval_leaves_what_its_values_can_be() {
        // The mean is far from the ends, but the spread of two values is not.
        for values in [&[0.1, 0.6][..], &[0.001, 0.999], &[0.0, 1.0], &[0.0, 0.001], &[0.999, 1.0], &[1e-300, 0.5]] {
            let [low, high] = Estimate::share(values).ci95.unwrap();
            assert!(0.0 <= low && low < high && high <= 1.0, "{values:?}: {low} to {high}");
            let plain = Estimate::of(values).ci95.unwrap();
            assert!(plain[0] < 0.0 || plain[1] > 1.0, "{values:?}: the plain interval would do");
            let [low, high] = Estimate::positive(values).ci95.unwrap();
            assert!(0.0 <= low && low < high, "{values:?}: {low} to {high}");
        }
        for estimate in [Estimate::share, Estimate::positive] {
            for value in [0.0, 1.0, 0.25] {
                assert_eq!(estimate(&[value; 3]).ci95, Some([value; 2]), "without spread");
            }
        }
        // Narrow intervals are those of Student's t on the values themselves.
        let values = [0.5, 0.5001, 0.5002];
        let [plain, share, positive] =
            [Estimate::of, Estimate::share, Estimate::positive].map(|estimate| estimate(&values).ci95.unwrap());
        for i in 0..2 {
            assert!((plain[i] - share[i]).abs() < 1e-6 && (plain[i] - positive[i]).abs() < 1e-6);
        }
    }

    #[test]
    fn one_value_has_no_interval_and_none_has_no_mean() {
        assert_eq!(Estimate::of(&[2.5]), Estimate { mean: Some(2.5), ci95: None });
        assert_eq!(Estimate::of(&[]), Estimate { mean: None, ci95: None });
    }
}
