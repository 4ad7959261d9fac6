//! Statistics whose distribution is drawn instead of assumed.

use super::descriptive::{mean, sorted};
use rand::{Rng, RngExt};

/// Samples that a percentile interval is taken from.
const RESAMPLES: usize = 2000;

/// What a tuning budget of `k` trials can be expected to find.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestOf {
    /// The budget.
    pub k: usize,
    /// The expected best result.
    pub mean: f64,
    /// The middle 95 % of it over resamples of the results: how much it hangs on single ones.
    pub spread: [f64; 2],
}

/// The expected best of k = 1..=n results, drawn with replacement from the `n` `values` of a tuning run: what the run would
/// have found with a smaller budget (Dodge et al. 2019, arXiv:1909.03004). Drawn with replacement, it is biased towards the worse
/// where k is near n (Tang et al. 2020, arXiv:2004.13705).
///
/// With `v` in order, the best first, `E_k = sum over i from 1 of v_i (((n - i + 1) / n)^k - ((n - i) / n)^k)`. The spread is
/// between the 2.5 % and 97.5 % quantiles of `E_k` over 2,000 samples of `n` values that `rng` draws. It is a
/// confidence interval only of values that were drawn independently, as a random search does; points of a sequence that fills
/// the space evenly are not.
///
/// A trial that diverged is given as infinity (or NaN). Its loss has no expectation, so all values that are not finite count as
/// the worst finite value, which flatters a rule that diverges often; none are returned where no value is finite.
pub fn expected_best(values: &[f64], minimise: bool, rng: impl Rng) -> Vec<BestOf> {
    // The least value is the best in here.
    let sign = if minimise { 1.0 } else { -1.0 };
    let finite = values.iter().filter(|value| value.is_finite()).map(|value| sign * value);
    let Some(worst) = finite.reduce(f64::max) else { return Vec::new() };
    let losses: Vec<f64> = values.iter().map(|value| if value.is_finite() { sign * value } else { worst }).collect();
    let weights = weights(losses.len());
    let expected = |sorted: &[f64], k: usize| {
        sign * sorted.iter().zip(&weights[k - 1]).map(|(value, weight)| value * weight).sum::<f64>()
    };
    let losses = sorted(&losses);
    let samples: Vec<Vec<f64>> = resamples(&losses, rng).map(|sample| sorted(&sample)).collect();
    let best_of = |k| BestOf {
        k,
        mean: expected(&losses, k),
        spread: percentiles(samples.iter().map(|sample| expected(sample, k)).collect()),
    };
    (1..=losses.len()).map(best_of).collect()
}

/// The 95 % percentile interval of the mean of independent `values`: the 2.5 % and 97.5 % quantiles of the means of 2,000
/// samples that `rng` draws; none of no values, or where one is not finite. Of few values it is too narrow: see
/// [`Estimate`](super::Estimate).
pub fn bootstrap_mean(values: &[f64], rng: impl Rng) -> Option<[f64; 2]> {
    let is_usable = !values.is_empty() && values.iter().all(|value| value.is_finite());
    is_usable.then(|| percentiles(resamples(values, rng).filter_map(|sample| mean(&sample)).collect()))
}

/// Row `k - 1` has the probability that the best of `k` draws out of `n` is the one of each rank, the best first.
fn weights(n: usize) -> Vec<Vec<f64>> {
    // That one draw is of this rank or worse, for the ranks from 0 to n. Its powers are formed by products, since those of the
    // standard library may change with the system.
    let worse: Vec<f64> = (0..=n).map(|rank| (n - rank) as f64 / n as f64).collect();
    let mut power = vec![1.0; n + 1];
    let row = |_| {
        power.iter_mut().zip(&worse).for_each(|(power, worse)| *power *= worse);
        power.windows(2).map(|pair| pair[0] - pair[1]).collect()
    };
    (0..n).map(row).collect()
}

/// Samples of as many values as there are, with replacement.
fn resamples(values: &[f64], mut rng: impl Rng) -> impl Iterator<Item = Vec<f64>> {
    (0..RESAMPLES).map(move |_| values.iter().map(|_| values[rng.random_range(0..values.len())]).collect())
}

/// The 2.5 % and 97.5 % quantiles.
fn percentiles(values: Vec<f64>) -> [f64; 2] {
    let sorted = sorted(&values);
    [0.025, 0.975].map(|q| quantile(&sorted, q))
}

/// The quantile `q` of sorted values: at place `q (n - 1)` from 0, linear between the two values about it.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + place.fract() * (high - low)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_near, cases};
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde::Deserialize;

    fn rng(seed: u64) -> impl Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// An interval's ends by the exact bootstrap, over all samples there are; 2,000 drawn ones must fall between the
    /// quantiles that are three standard deviations of such a draw away.
    type Bands = [[f64; 2]; 2];

    #[track_caller]
    fn assert_in_bands(ci95: [f64; 2], bands: Bands) {
        for (found, [low, high]) in ci95.into_iter().zip(bands) {
            let slack = 1e-12 * (high.abs() + low.abs());
            assert!(low - slack <= found && found <= high + slack, "{found} is not in {low} .. {high}");
        }
    }

    #[test]
    fn the_expected_best_agrees_with_all_draws_there_are() {
        #[derive(Deserialize)]
        struct Case {
            /// Null is a trial that diverged.
            values: Vec<Option<f64>>,
            minimise: bool,
            means: Vec<f64>,
            bands: Vec<Bands>,
        }
        for Case { values, minimise, means, bands } in cases("expected_best") {
            let diverged = if minimise { f64::INFINITY } else { f64::NEG_INFINITY };
            let values: Vec<f64> = values.into_iter().map(|value| value.unwrap_or(diverged)).collect();
            let found = expected_best(&values, minimise, rng(0));
            assert_eq!(found.len(), means.len());
            for (i, best) in found.iter().enumerate() {
                assert_eq!(best.k, i + 1);
                assert_near(best.mean, means[i]);
                assert_in_bands(best.spread, bands[i]);
            }
        }
    }

    #[test]
    fn the_best_of_one_is_the_mean_and_more_never_hurts() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i * i % 61)).collect();
        let found = expected_best(&values, true, rng(3));
        assert_near(found[0].mean, mean(&values).unwrap());
        assert!(found.windows(2).all(|pair| pair[1].mean < pair[0].mean));
        assert!(found.iter().all(|best| best.spread[0] <= best.mean && best.mean <= best.spread[1]));
        assert_eq!(expected_best(&[f64::INFINITY, f64::NAN], true, rng(0)), []);
        assert_eq!(expected_best(&[], true, rng(0)), []);
    }

    #[test]
    fn the_interval_of_a_mean_agrees_with_all_samples_there_are() {
        #[derive(Deserialize)]
        struct Case {
            values: Vec<f64>,
            bands: Bands,
        }
        for Case { values, bands } in cases("bootstrap_mean") {
            assert_in_bands(bootstrap_mean(&values, rng(0)).unwrap(), bands);
        }
        assert_eq!(bootstrap_mean(&[], rng(0)), None);
        assert_eq!(bootstrap_mean(&[1.0, f64::INFINITY], rng(0)), None);
    }

    #[test]
    fn an_interval_is_a_function_of_values_and_generator() {
        let values: Vec<f64> = (0..20).map(|i| f64::from(i).sin()).collect();
        assert_eq!(bootstrap_mean(&values, rng(1)), bootstrap_mean(&values, rng(1)));
        assert_ne!(bootstrap_mean(&values, rng(1)), bootstrap_mean(&values, rng(2)));
        assert_eq!(expected_best(&values, true, rng(1)), expected_best(&values, true, rng(1)));
        assert_ne!(expected_best(&values, true, rng(1)), expected_best(&values, true, rng(2)));
    }

    #[test]
    fn quantiles_agree_with_numpy() {
        #[derive(Deserialize)]
        struct Case {
            values: Vec<f64>,
            percentiles: [f64; 2],
        }
        for Case { values, percentiles: expected } in cases("percentiles") {
            let found = percentiles(values);
            assert_near(found[0], expected[0]);
            assert_near(found[1], expected[1]);
        }
    }
}
