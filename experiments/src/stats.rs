//! Statistics over the seeds of a group, between groups, over tuning trials and over workloads.

use crate::random::{Purpose, stream};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::statistics::{Data, OrderStatistics};

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

/// The median; none of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| Data::new(values.to_vec()).median())
}

/// The difference between two groups whose trials come in pairs of the same seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The mean of the differences, first less second, with its interval.
    pub difference: Estimate,
    /// Pairs.
    pub n: usize,
    /// Student's t of the differences.
    pub t: f64,
    /// The two-sided p value of "the mean difference is 0".
    pub p: f64,
}

/// The paired t-test: `t = mean(d) / (s / sqrt(n))` over the differences `d = a - b` of the seeds that both have, with n - 1
/// degrees of freedom. A trial that diverged has no value and leaves its pair out. None with fewer than two pairs. Without any
/// spread, p is 1 where the differences are 0 and 0 elsewhere.
pub fn paired_t(a: &[Option<f64>], b: &[Option<f64>]) -> Option<Comparison> {
    let differences: Vec<f64> = a.iter().zip(b).filter_map(|(a, b)| Some((*a)? - (*b)?)).collect();
    let (mean, s) = (mean(&differences)?, standard_deviation(&differences)?);
    let n = differences.len();
    let (t, p) = if s > 0.0 {
        let t = mean / (s / (n as f64).sqrt());
        let student = StudentsT::new(0.0, 1.0, (n - 1) as f64).expect("at least one degree of freedom");
        (t, 2.0 * student.cdf(-t.abs()))
    } else if mean == 0.0 {
        (0.0, 1.0)
    } else {
        (f64::INFINITY.copysign(mean), 0.0)
    };
    Some(Comparison { difference: Estimate::of(&differences), n, t, p })
}

/// The p values of a family of tests, adjusted after Holm (1979), in the order given: with the k-th smallest multiplied by
/// `m - k + 1`, none below a smaller one's and none above 1, those up to 0.05 are significant together at 5 %.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0f64;
    for (rank, i) in order.into_iter().enumerate() {
        least = least.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        adjusted[i] = least;
    }
    adjusted
}

/// Wilson's (1927) 95 % interval of a share, from `k` of `n`; 0 to 1 of none.
pub fn share_interval(k: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let z = Normal::standard().inverse_cdf(0.975);
    let (k, n) = (k as f64, n as f64);
    let (p, z2) = (k / n, z * z / n);
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = z / (1.0 + z2) * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    // At the ends the bound is exact, and rounding would leave it beyond.
    [if k == 0.0 { 0.0 } else { centre - half }, if k == n { 1.0 } else { centre + half }]
}

/// Resamples of a bootstrap.
const RESAMPLES: u64 = 2_000;

/// The 2.5 % and 97.5 % quantiles of `statistic` over bootstrap resamples of `values`, a function of `seed`.
fn bootstrap(values: &[f64], seed: u64, mut statistic: impl FnMut(&[f64])) {
    let mut resample = vec![0.0; values.len()];
    for index in 0..RESAMPLES {
        let mut rng = stream(seed, Purpose::Bootstrap, index);
        resample.fill_with(|| values[rng.random_range(0..values.len())]);
        statistic(&resample);
    }
}

fn percentile_interval(statistics: Vec<f64>) -> [f64; 2] {
    let mut data = Data::new(statistics);
    [data.quantile(0.025), data.quantile(0.975)]
}

/// The 95 % percentile bootstrap interval of the mean (2,000 resamples, a function of `seed`); none of no values.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Option<[f64; 2]> {
    mean(values)?;
    let mut means = Vec::new();
    bootstrap(values, seed, |resample| means.push(resample.iter().sum::<f64>() / resample.len() as f64));
    Some(percentile_interval(means))
}

/// The expected best result of a number of tuning trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestOf {
    /// The number of trials.
    pub k: usize,
    /// The expected best of so many.
    pub mean: f64,
    /// Its 95 % percentile bootstrap interval.
    pub ci95: [f64; 2],
}

/// For `k = 1..=n`, the expected best of `k` results drawn with replacement from the `n` results of tuning (Dodge et al. 2019,
/// arXiv:1909.03004): `sum over i of v_i (F(v_i)^k - F(v_i-1)^k)` over the results from worst to best, with F their empirical
/// distribution. The least is the best if `minimise`, else the greatest. A result that is not finite, as of a trial that diverged,
/// counts as the worst finite one. The interval is by 2,000 bootstrap resamples, a function of `seed`. Empty if no result is finite.
pub fn expected_best(values: &[f64], minimise: bool, seed: u64) -> Vec<BestOf> {
    let sign = if minimise { -1.0 } else { 1.0 };
    // From here on the greatest is the best.
    let finite = || values.iter().filter(|x| x.is_finite()).map(|x| sign * x);
    let worst = finite().fold(f64::INFINITY, f64::min);
    if worst == f64::INFINITY {
        return Vec::new();
    }
    let values: Vec<f64> = values.iter().map(|x| if x.is_finite() { sign * x } else { worst }).collect();
    let expected = |values: &[f64]| -> Vec<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let of = |k: usize| {
            let terms = sorted
                .iter()
                .enumerate()
                .map(|(i, value)| value * (((i + 1) as f64 / n).powi(k as i32) - (i as f64 / n).powi(k as i32)));
            terms.sum()
        };
        (1..=sorted.len()).map(of).collect()
    };
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); values.len()];
    bootstrap(&values, seed, |resample| {
        samples.iter_mut().zip(expected(resample)).for_each(|(samples, best)| samples.push(best));
    });
    let best = |(i, (mean, samples)): (usize, (f64, Vec<f64>))| {
        let [low, high] = percentile_interval(samples);
        let ci95 = if minimise { [-high, -low] } else { [low, high] };
        BestOf { k: i + 1, mean: sign * mean, ci95 }
    };
    expected(&values).into_iter().zip(samples).enumerate().map(best).collect()
}

/// How often a solver is near the best: AlgoPerf's performance profile (Dolan & More 2002, arXiv:cs/0102001; Dahl et al. 2023,
/// arXiv:2306.07179).
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// From 1 to 4, with a value at each step of `rho`.
    pub tau: Vec<f64>,
    /// The share of workloads on which the solver takes at most `tau` times the time of the best; constant up to the next `tau`.
    pub rho: Vec<f64>,
    /// The integral of `rho` from 1 to 4, over 3.
    pub score: f64,
}

/// The profile of each solver, from its time to the target on each workload: `times[solver][workload]`, none where it is not
/// reached. A workload that nobody solves counts as one that nobody is near on.
pub fn performance_profiles(times: &[Vec<Option<f64>>]) -> Vec<Profile> {
    const END: f64 = 4.0;
    let workloads = times.iter().map(Vec::len).max().unwrap_or(0);
    let best = |workload: usize| {
        times.iter().filter_map(|times| times.get(workload).copied().flatten()).fold(f64::INFINITY, f64::min)
    };
    let profile = |times: &Vec<Option<f64>>| {
        let ratios = times.iter().enumerate().filter_map(|(workload, time)| {
            let (time, best) = ((*time)?, best(workload));
            // Both may be 0.
            Some(if time == best { 1.0 } else { time / best })
        });
        let mut ratios: Vec<f64> = ratios.filter(|ratio| *ratio <= END).collect();
        ratios.sort_by(f64::total_cmp);
        let mut tau = vec![1.0];
        tau.extend(ratios.iter().copied().filter(|ratio| *ratio > 1.0 && *ratio < END));
        tau.dedup();
        tau.push(END);
        let share = |tau: &f64| ratios.partition_point(|ratio| ratio <= tau) as f64 / workloads.max(1) as f64;
        let rho: Vec<f64> = tau.iter().map(share).collect();
        let area: f64 = tau.windows(2).zip(&rho).map(|(tau, rho)| (tau[1] - tau[0]) * rho).sum();
        Profile { tau, rho, score: area / (END - 1.0) }
    };
    times.iter().map(profile).collect()
}

/// The x of the first point whose y has reached `target`: is at least, or else at most, as much.
pub fn first_reached(points: &[(f64, f64)], target: f64, at_least: bool) -> Option<f64> {
    let has = |y: f64| if at_least { y >= target } else { y <= target };
    points.iter().find(|(_, y)| has(*y)).map(|(x, _)| *x)
}

/// The area under a curve by the trapezoid rule, over its length: the mean of y over x. The y of a single point; none of no
/// points.
pub fn mean_over_curve(points: &[(f64, f64)]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if first.0 == last.0 {
        return Some(first.1);
    }
    let area: f64 = points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum();
    Some(area / (last.0 - first.0))
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
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/fixtures/estimates.json")).unwrap();
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

    /// By seed; none where a trial diverged.
    type Losses = Vec<Option<f64>>;

    #[derive(Deserialize)]
    struct Fixture {
        /// Two groups, then n, t, p and the interval of the difference.
        paired_t: Vec<(Losses, Losses, [f64; 5])>,
        holm: Vec<(Vec<f64>, Vec<f64>)>,
        share_interval: Vec<(usize, usize, [f64; 2])>,
        expected_best: Vec<(Vec<f64>, bool, Vec<f64>)>,
        bootstrap_mean: Vec<(Vec<f64>, [f64; 2], f64)>,
        median: Vec<(Vec<f64>, f64)>,
        mean_over_curve: Vec<(Vec<(f64, f64)>, f64)>,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../tests/fixtures/statistics.json")).unwrap()
    }

    fn close(found: &[f64], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-10 * b.abs().max(1e-3), "{what}: {found:?} is not {expected:?}");
        }
    }

    #[test]
    fn comparisons_agree_with_scipy() {
        let fixture = fixture();
        assert!(fixture.paired_t.len() >= 5 && fixture.holm.len() >= 4 && fixture.share_interval.len() >= 6);
        for (a, b, expected) in fixture.paired_t {
            let Comparison { difference, n, t, p } = paired_t(&a, &b).unwrap();
            let [low, high] = difference.ci95.unwrap();
            close(&[n as f64, t, p, low, high], &expected, "paired t");
        }
        for (p, adjusted) in fixture.holm {
            close(&holm(&p), &adjusted, "Holm");
        }
        for (k, n, interval) in fixture.share_interval {
            close(&share_interval(k, n), &interval, "Wilson");
        }
        for (values, expected) in fixture.median {
            assert_eq!(median(&values), Some(expected));
        }
        for (points, expected) in fixture.mean_over_curve {
            close(&[mean_over_curve(&points).unwrap()], &[expected], "trapezoid");
        }
    }

    #[test]
    fn comparisons_at_the_edges() {
        assert_eq!(paired_t(&[Some(1.0), None, Some(2.0)], &[Some(1.0), Some(3.0), None]), None);
        let same = paired_t(&[Some(1.0), Some(2.0)], &[Some(1.0), Some(2.0)]).unwrap();
        assert_eq!((same.t, same.p), (0.0, 1.0));
        let shifted = paired_t(&[Some(1.0), Some(2.0)], &[Some(3.0), Some(4.0)]).unwrap();
        assert_eq!((shifted.t, shifted.p, shifted.difference.mean), (f64::NEG_INFINITY, 0.0, Some(-2.0)));
        assert_eq!(share_interval(0, 0), [0.0, 1.0]);
        assert_eq!((holm(&[]), median(&[]), mean_over_curve(&[])), (vec![], None, None));
        assert_eq!(mean_over_curve(&[(3.0, 7.0)]), Some(7.0));
    }

    #[test]
    fn bootstraps_agree_with_numpy_and_repeat() {
        let fixture = fixture();
        for (values, minimise, expected) in fixture.expected_best {
            let best = expected_best(&values, minimise, 1);
            close(&best.iter().map(|best| best.mean).collect::<Vec<_>>(), &expected, "expected best");
            assert_eq!(best.iter().map(|best| best.k).collect::<Vec<_>>(), (1..=values.len()).collect::<Vec<_>>());
            assert!(
                best.iter().all(|best| best.ci95[0] <= best.mean + 1e-12 && best.mean <= best.ci95[1] + 1e-12),
                "{best:?}"
            );
            assert_eq!(best, expected_best(&values, minimise, 1));
        }
        assert!(expected_best(&[f64::INFINITY], true, 0).is_empty());
        let with_diverged = expected_best(&[1.0, f64::INFINITY, 3.0], true, 0);
        close(&[with_diverged[0].mean], &[7.0 / 3.0], "a diverged trial counts as the worst");
        for (values, interval, spread) in fixture.bootstrap_mean {
            let found = bootstrap_mean(&values, 3).unwrap();
            for (a, b) in found.iter().zip(interval) {
                // Two bootstraps of 2,000 and 100,000 resamples differ by their own sampling.
                assert!((a - b).abs() < 0.15 * spread, "{found:?} is not {interval:?}");
            }
            assert_ne!(bootstrap_mean(&values, 4).unwrap(), found);
        }
    }

    /// Times 1, 2, 8 and never against 2, 1, 4 and never.
    #[test]
    fn profiles_by_hand() {
        let times = [vec![Some(1.0), Some(2.0), Some(8.0), None], vec![Some(2.0), Some(1.0), Some(4.0), None]];
        let [a, b] = performance_profiles(&times).try_into().unwrap();
        assert_eq!((a.tau, a.rho, a.score), (vec![1.0, 2.0, 4.0], vec![0.25, 0.75, 0.75], (0.25 + 2.0 * 0.75) / 3.0));
        assert_eq!((b.tau, b.rho, b.score), (vec![1.0, 2.0, 4.0], vec![0.5, 0.75, 0.75], (0.5 + 2.0 * 0.75) / 3.0));
        let alone = performance_profiles(&[vec![Some(0.0), None]]);
        assert_eq!((&alone[0].tau[..], &alone[0].rho[..], alone[0].score), (&[1.0, 4.0][..], &[0.5, 0.5][..], 0.5));
        assert!(performance_profiles(&[]).is_empty());
    }

    #[test]
    fn a_target_is_reached_by_the_first_point_at_it() {
        let points = [(1.0, 0.2), (2.0, 0.5), (3.0, 0.4)];
        assert_eq!(first_reached(&points, 0.5, true), Some(2.0));
        assert_eq!(first_reached(&points, 0.3, false), Some(1.0));
        assert_eq!((first_reached(&points, 0.6, true), first_reached(&points, 0.1, false)), (None, None));
    }
}
