//! Tuning: how many points of a space are tried when, and how one is picked.
//!
//! One rule for all groups, which all get the same number of trials. The first half of them is spread over the group's space by one
//! quasi-random sequence, so that no group is luckier than another. The others go two at a time between the best so far and its
//! neighbours, in the learning rate first; where the best has no neighbour on a side, the space grows that way
//! ([`around_best`](super::space::Space::around_best)).
//! What a user gave a value in `--opt` keeps it, and is not searched; what a user gave in `--space` does not grow. Trials train on a
//! part of the training data, with as many passes, and are judged by the loss on the rest, with a seed that no final trial has; the test
//! data play no part. The least final loss wins; a trial that diverged cannot.

use crate::record::outcome::Outcome;

/// The seed of all tuning trials: far from the seeds 0, 1, .. of the final ones.
pub const SEED: u64 = 1 << 32;

/// The most tuning trials of a group: the points of the sequence.
pub const MOST: usize = 1 << 16;

/// Up to here all trials are spread.
const FEW: usize = 3;

/// The sizes of the rounds of `count` trials: those that are spread, then those around the best.
pub fn rounds(count: usize) -> Vec<usize> {
    let spread = if count <= FEW { count } else { count.div_ceil(2) };
    let mut rounds = vec![spread];
    let mut left = count - spread;
    while left > 0 {
        rounds.push(left.min(2));
        left -= left.min(2);
    }
    rounds
}

/// The index of the trial that is picked: the least final loss of those that did not diverge, the first of equals; the first
/// trial if all diverged.
pub fn pick(outcomes: &[&Outcome]) -> usize {
    let losses = outcomes.iter().enumerate().filter_map(|(i, outcome)| Some((outcome.final_loss?, i)));
    losses.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or(0, |(_, i)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_trials_are_spread_and_the_others_follow_in_pairs() {
        for (count, expected) in
            [(1, &[1][..]), (3, &[3]), (4, &[2, 2]), (5, &[3, 2]), (8, &[4, 2, 2]), (9, &[5, 2, 2]), (7, &[4, 2, 1])]
        {
            assert_eq!(rounds(count), expected);
        }
    }

    #[test]
    fn the_least_final_loss_is_picked_and_no_diverged_trial() {
        let outcome = |loss| Outcome { final_loss: loss, diverged: loss.is_none(), ..Outcome::default() };
        let outcomes = [None, Some(2.0), Some(1.0), Some(1.0), None].map(outcome);
        assert_eq!(pick(&outcomes.iter().collect::<Vec<_>>()), 2);
        assert_eq!(pick(&[&outcome(None), &outcome(None)]), 0);
    }
}
