//! Successive halving: how far trials of a search are run before the better ones of them are run on.
//!
//! A search has a budget of updates, the same for all groups. Its trials are run to rungs: a ninth of a whole trial, a third, the whole (with
//! the rungs of ASHA: Li et al. 2020, arXiv:1810.05934). Half of the budget goes to trials that are spread over the space by the
//! quasi-random sequence, of which the better third at each rung is run on. With the other half, pairs of points around the best whole trial
//! are tried, as by [`tune`](super::tune); each is run on while it is in the better third of all that came to its rung. What is not run on
//! stays stopped. All follows from the losses at the rungs, which are evaluations that a trial makes anyway: nothing depends on how
//! many trials run at a time, or on an interruption.

/// Of so many trials one is run on.
const FACTOR: u64 = 3;

/// The rungs of a trial of `steps` updates that is evaluated after `evaluate_every` ones: numbers of updates, the last `steps`.
pub fn rungs(steps: u64, evaluate_every: u64) -> Vec<u64> {
    let at = |share: u64| steps / share / evaluate_every * evaluate_every;
    let mut rungs = vec![at(FACTOR * FACTOR), at(FACTOR), steps];
    rungs.retain(|rung| *rung > 0);
    rungs.dedup();
    rungs
}

/// Of `count` trials, how many are run on.
pub fn survivors(count: usize) -> usize {
    count.div_ceil(FACTOR as usize)
}

/// The trials that are spread over a space, for a search of `budget` updates: as many as half of that allows, one at least.
pub fn spread(rungs: &[u64], budget: u64) -> usize {
    let cost = |count: usize| {
        let (mut left, mut before, mut cost) = (count, 0, 0u64);
        for rung in rungs {
            cost = cost.saturating_add((rung - before).saturating_mul(left as u64));
            (left, before) = (survivors(left), *rung);
        }
        cost
    };
    let most = super::tune::MOST;
    let mut count = 1;
    while count < most && cost(count + 1) <= budget / 2 {
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
            (900, 10, &[100, 300, 900][..]),
            (880, 44, &[88, 264, 880]),
            (1800, 90, &[180, 540, 1800]),
            (20, 1, &[2, 6, 20]),
            (8, 1, &[2, 8]),
            (2, 1, &[2]),
            (1, 1, &[1]),
        ] {
            assert_eq!(rungs(steps, every), expected, "{steps}, {every}");
        }
    }

    #[test]
    fn half_of_the_budget_is_spread() {
        for (rungs, budget, expected) in [
            // 9 x 100 + 3 x 200 + 600 are 2,100 updates.
            (&[100, 300, 900][..], 4_200, 9),
            (&[100, 300, 900], 4_199, 8),
            (&[100, 300, 900], 900, 1),
            (&[5], 100, 10),
        ] {
            assert_eq!(spread(rungs, budget), expected, "{rungs:?}, {budget}");
        }
    }
}
