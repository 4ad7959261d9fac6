//! Successive halving: how far trials of a search are run before the better ones of them are run on.
//!
//! A search has a budget of updates, the same for all groups. Two fifths of it go to trials that are spread over the space by the
//! quasi-random sequence. They are run to rungs: an eighth of a whole trial, a quarter, a half, the whole; of those at a rung the better half
//! is run on (the rungs of ASHA: Li et al. 2020, arXiv:1810.05934, with all of a rung waited for, so that nothing depends on what ends
//! first). What is not run on stays stopped. With the other three fifths, pairs of points around the best are tried, as by
//! [`tune`](super::tune), and run whole: near the best, who leads early is not who leads at the end, since large learning rates
//! lead early. The losses at the rungs are evaluations that a trial makes anyway.

/// Of so many trials at a rung one is run on.
const FACTOR: u64 = 2;

/// Rungs before the whole.
const RUNGS: u32 = 3;

/// The share of a budget that is for whole trials around the best.
const AROUND_BEST: f64 = 0.6;

/// The rungs of a trial of `steps` updates that is evaluated after `evaluate_every` ones: numbers of updates, the last `steps`.
pub fn rungs(steps: u64, evaluate_every: u64) -> Vec<u64> {
    let at = |rung: u32| steps / FACTOR.pow(rung) / evaluate_every * evaluate_every;
    let mut rungs: Vec<u64> = (1..=RUNGS).rev().map(at).filter(|rung| *rung > 0).collect();
    rungs.push(steps);
    rungs.dedup();
    rungs
}

/// Of `count` trials at a rung, how many are run on.
pub fn survivors(count: usize) -> usize {
    count.div_ceil(FACTOR as usize)
}

/// The trials that are spread over a space, for a search of `budget` updates, which is at least that of a whole trial: as many as leave
/// enough for the whole trials around the best, and one at least.
pub fn spread(rungs: &[u64], budget: u64) -> usize {
    let whole = rungs.last().copied().unwrap_or(1);
    let around_best = (AROUND_BEST * budget as f64 / whole as f64).round() as u64;
    let left = budget.saturating_sub(around_best.saturating_mul(whole));
    let cost = |count: usize| {
        let (mut running, mut before, mut cost) = (count, 0, 0u64);
        for rung in rungs {
            cost = cost.saturating_add((rung - before).saturating_mul(running as u64));
            (running, before) = (survivors(running), *rung);
        }
        cost
    };
    let mut count = 1;
    while count < super::tune::MOST && cost(count + 1) <= left {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_where_trials_are_evaluated() {
        for (steps, every, expected) in [
            (800, 10, &[100, 200, 400, 800][..]),
            (880, 44, &[88, 220, 440, 880]),
            (1800, 90, &[180, 450, 900, 1800]),
            (20, 1, &[2, 5, 10, 20]),
            (5, 1, &[1, 2, 5]),
            (2, 1, &[1, 2]),
            (1, 1, &[1]),
        ] {
            assert_eq!(rungs(steps, every), expected, "{steps}, {every}");
        }
    }

    #[test]
    fn two_fifths_of_the_budget_are_spread() {
        for (rungs, budget, expected) in [
            // 8 x 100 + 4 x 100 + 2 x 200 + 400 are 2,000 updates; three whole trials are left.
            (&[100, 200, 400, 800][..], 4_400, 8),
            (&[100, 200, 400, 800], 4_399, 7),
            (&[100, 200, 400, 800], 800, 1),
            (&[5], 100, 8),
        ] {
            assert_eq!(spread(rungs, budget), expected, "{rungs:?}, {budget}");
        }
    }
}
