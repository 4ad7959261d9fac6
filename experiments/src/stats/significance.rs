//! Whether groups differ.

use super::{
    descriptive::{mean, standard_deviation},
    estimate::{Estimate, t_quantile},
};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Two groups compared over the seeds that they share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// The mean of the differences by seed, the first group's value minus the second's.
    pub difference: Estimate,
    /// The seeds compared.
    pub n: usize,
    /// `mean / (s / sqrt(n))`; infinite where all differences are the same and not 0.
    pub t: f64,
    /// The probability that means of `n` differences are as far from 0 or farther, where the groups do not differ:
    /// two-sided, after Student's t with n - 1 degrees of freedom.
    pub p: f64,
    /// The standard error of the mean, `s / sqrt(n)`.
    pub standard_error: f64,
}

/// The probability with which a number of seeds shows a difference.
const POWER: f64 = 0.8;

impl PairedTest {
    /// The least difference, either way, that these seeds could have shown: with differences by seed as far from their mean as
    /// these, a mean nearer to 0 has p above `alpha / tests`, which is the bound that [`holm_tests`] tells. It is
    /// `t(1 - alpha / (2 tests), n - 1) s / sqrt(n)`.
    pub fn least_significant(&self, alpha: f64, tests: usize) -> f64 {
        t_quantile(1.0 - alpha / (2.0 * tests.max(1) as f64), self.n - 1) * self.standard_error
    }

    /// The least number of seeds, up to `most`, that show a difference of `size` with a probability of four in five, where differences by
    /// seed vary as these do: `size >= (t(1 - alpha / (2 tests), n - 1) + t(0.8, n - 1)) s / sqrt(n)`.
    pub fn seeds_to_show(&self, size: f64, alpha: f64, tests: usize, most: usize) -> Option<usize> {
        let s = self.standard_error * (self.n as f64).sqrt();
        let is_enough = |n: usize| {
            let of = |share: f64| t_quantile(share, n - 1);
            (of(1.0 - alpha / (2.0 * tests.max(1) as f64)) + of(POWER)) * s / (n as f64).sqrt() <= size
        };
        // More seeds show what fewer do.
        let (mut low, mut high) = (2, most);
        if most < 2 || !is_enough(most) {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if is_enough(middle) { high = middle } else { low = middle + 1 }
        }
        Some(low)
    }
}

/// The paired t-test of `a` against `b`, values by seed in the same order, none (or not finite) where a trial diverged. Seeds
/// that lack either are left out; none of fewer than two pairs.
///
/// A seed gives both groups the same initial values and the same order of examples, so a difference by seed is free of what
/// these two change. It says nothing of the trials that diverged: see [`share_interval`].
pub fn paired_t(a: &[Option<f64>], b: &[Option<f64>]) -> Option<PairedTest> {
    let both = a.iter().zip(b).filter_map(|(a, b)| (*a).zip(*b));
    let differences: Vec<f64> = both.map(|(a, b)| a - b).filter(|difference| difference.is_finite()).collect();
    let n = differences.len();
    let (mean, s) = mean(&differences).zip(standard_deviation(&differences))?;
    let first = differences[0];
    // The mean of equal numbers may be rounded, which would leave them a standard deviation.
    if differences.iter().all(|difference| *difference == first) {
        let (t, p) = if first == 0.0 { (0.0, 1.0) } else { (f64::INFINITY.copysign(first), 0.0) };
        let difference = Estimate { mean: Some(first), ci95: Some([first; 2]) };
        return Some(PairedTest { difference, n, t, p, standard_error: 0.0 });
    }
    let standard_error = s / (n as f64).sqrt();
    let t = mean / standard_error;
    let distribution = StudentsT::new(0.0, 1.0, (n - 1) as f64).expect("at least one degree of freedom");
    let p = 2.0 * distribution.sf(t.abs());
    Some(PairedTest { difference: Estimate::of(&differences), n, t, p, standard_error })
}

/// The p values of several tests, adjusted after Holm-Bonferroni (Holm 1979) and in the order given: to reject where they are
/// at most alpha is to reject any true hypothesis among all with probability alpha at most.
///
/// Of `m` in ascending order, the `i`-th from 1 becomes `max over j <= i of min(1, (m - j + 1) p_j)`.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut ascending: Vec<usize> = (0..p.len()).collect();
    ascending.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut greatest: f64 = 0.0;
    for (rank, index) in ascending.into_iter().enumerate() {
        greatest = greatest.max((p.len() - rank) as f64 * p[index]).min(1.0);
        adjusted[index] = greatest;
    }
    adjusted
}

/// By how many tests the level `alpha` is divided for the one at `index` of several with these `p` values, after Holm: it is
/// rejected just where its p is at most `alpha` over that. That is their number, less the others that are rejected whatever its
/// own p is.
pub fn holm_tests(p: &[f64], index: usize, alpha: f64) -> usize {
    let mut others: Vec<f64> = p.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, p)| *p).collect();
    others.sort_unstable_by(f64::total_cmp);
    let is_rejected = |(rank, other): &(usize, &f64)| (p.len() - rank) as f64 * **other <= alpha;
    p.len() - others.iter().enumerate().take_while(is_rejected).count()
}

/// The 95 % interval of a share of which `k` of `n` were seen, after Wilson (1927): all shares `q` with
/// `|k / n - q| <= z sqrt(q (1 - q) / n)`, z = 1.96. Of nothing seen, all shares.
pub fn share_interval(k: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let z = Normal::standard().inverse_cdf(0.975);
    let (share, n_f64) = (k as f64 / n as f64, n as f64);
    let scale = 1.0 + z * z / n_f64;
    let centre = (share + z * z / (2.0 * n_f64)) / scale;
    let half = z / scale * (share * (1.0 - share) / n_f64 + (z / (2.0 * n_f64)).powi(2)).sqrt();
    // At both ends the interval ends there too, but for rounding.
    let low = if k == 0 { 0.0 } else { centre - half };
    let high = if k == n { 1.0 } else { centre + half };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_near, assert_within, cases};
    use super::*;
    use serde::Deserialize;

    #[test]
    fn a_paired_test_agrees_with_scipy() {
        #[derive(Deserialize)]
        struct Case {
            a: Vec<Option<f64>>,
            b: Vec<Option<f64>>,
            n: usize,
            mean: f64,
            ci95: [f64; 2],
            t: f64,
            p: f64,
            /// By the number of tests.
            least_significant: Vec<(usize, f64)>,
        }
        for Case { a, b, n, mean, ci95, t, p, least_significant } in cases("paired_t") {
            let found = paired_t(&a, &b).unwrap();
            let (width, [low, high]) = (ci95[1] - ci95[0], found.difference.ci95.unwrap());
            assert_eq!(found.n, n);
            assert_within(found.difference.mean.unwrap(), mean, width);
            assert_within(low, ci95[0], width);
            assert_within(high, ci95[1], width);
            assert_within(found.t, t, t.abs().max(1.0));
            assert_near(found.p, p);
            for (tests, expected) in least_significant {
                assert_near(found.least_significant(0.05, tests), expected);
            }
        }
    }

    #[test]
    fn the_least_significant_difference_is_where_a_difference_becomes_significant() {
        let values = |shift: f64| [0.3, 0.1, -0.2, 0.5].map(|x| Some(x + shift));
        let zero = [Some(0.0); 4];
        let centre = -(0.3 + 0.1 - 0.2 + 0.5) / 4.0;
        for tests in [1, 3, 28] {
            let least = paired_t(&values(centre), &zero).unwrap().least_significant(0.05, tests);
            let p = |mean: f64| paired_t(&values(centre + mean), &zero).unwrap().p * tests as f64;
            assert!(p(least * 1.001) < 0.05 && p(least * 0.999) > 0.05, "{tests} tests");
        }
        let none = paired_t(&[Some(1.0); 3], &[Some(1.0); 3]).unwrap();
        assert_eq!(none.least_significant(0.05, 1), 0.0, "without spread any difference shows");
    }

    #[test]
    fn as_many_seeds_are_asked_for_as_statsmodels_asks_for() {
        #[derive(Deserialize)]
        struct Case {
            effect: f64,
            tests: usize,
            n: usize,
        }
        let test = paired_t(&[0.3, 0.1, -0.2, 0.5].map(Some), &[Some(0.0); 4]).unwrap();
        let s = test.standard_error * 2.0;
        for Case { effect, tests, n } in cases("seeds_to_show") {
            let found = test.seeds_to_show(effect * s, 0.05, tests, 1_000).unwrap();
            // It has the noncentral t distribution, of which this is an approximation.
            assert!(found.abs_diff(n) <= 1, "{effect} {tests}: {found}, not {n}");
        }
        assert_eq!(test.seeds_to_show(0.01 * s, 0.05, 1, 1_000), None);
    }

    #[test]
    fn a_paired_test_knows_what_has_no_spread_or_no_pairs() {
        let some = |values: [f64; 3]| values.map(Some);
        let same = paired_t(&some([0.1, 0.2, 0.3]), &some([0.1, 0.2, 0.3])).unwrap();
        assert_eq!((same.difference.mean, same.t, same.p), (Some(0.0), 0.0, 1.0));
        // The mean of three times 0.1 is not 0.1 in floating point.
        let shifted = paired_t(&some([0.0; 3]), &some([0.1; 3])).unwrap();
        assert_eq!((shifted.difference.ci95, shifted.t, shifted.p), (Some([-0.1; 2]), f64::NEG_INFINITY, 0.0));
        let lone = [Some(1.0), None, Some(f64::NAN)];
        assert_eq!(paired_t(&lone, &some([2.0; 3])), None);
        assert_eq!(paired_t(&[], &[]), None);
    }

    #[test]
    fn adjusted_p_values_agree_with_statsmodels() {
        #[derive(Deserialize)]
        struct Case {
            p: Vec<f64>,
            adjusted: Vec<f64>,
        }
        for Case { p, adjusted } in cases("holm") {
            let found = holm(&p);
            assert_eq!(found.len(), adjusted.len());
            found.iter().zip(adjusted).for_each(|(found, expected)| assert_near(*found, expected));
        }
    }

    #[test]
    fn a_test_is_significant_just_where_its_own_bound_says_so() {
        #[derive(Deserialize)]
        struct Case {
            p: Vec<f64>,
            adjusted: Vec<f64>,
        }
        for Case { p, adjusted } in cases("holm") {
            for alpha in [0.01, 0.05, 0.5] {
                for index in 0..p.len() {
                    let tests = holm_tests(&p, index, alpha);
                    let is_below = p[index] * tests as f64 <= alpha;
                    assert_eq!(is_below, adjusted[index] <= alpha, "{p:?}, {index}, {alpha}: {tests} tests");
                }
            }
        }
    }

    #[test]
    fn the_interval_of_a_share_agrees_with_scipy() {
        #[derive(Deserialize)]
        struct Case {
            k: usize,
            n: usize,
            ci95: [f64; 2],
        }
        for Case { k, n, ci95 } in cases("share_interval") {
            let found = share_interval(k, n);
            assert_near(found[0], ci95[0]);
            assert_near(found[1], ci95[1]);
        }
        assert_eq!(share_interval(0, 0), [0.0, 1.0]);
    }
}
