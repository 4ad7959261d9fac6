//! Tuning: the space of hyperparameters that each rule is searched in, the points that are tried, and how one is picked.
//!
//! Every group gets the same number of trials. Trial `i` of each group takes point `i` of one quasi-random sequence (Sobol's
//! with Owen's scrambling), spread over the group's own space, so that no group is luckier than another: the sequence fills a
//! space more evenly than independent draws, which matters most where trials are few, and default spaces are equally wide.
//! What a user gave a value in `--opt` keeps it, and is not searched. Trials train on nine tenths of the training data and are
//! judged by the loss on the rest, with a seed that no final trial has; the test data play no part. The least final loss wins; a
//! trial that diverged cannot.

use crate::record::outcome::Outcome;

/// The seed of all tuning trials: far from the seeds 0, 1, .. of the final ones.
pub const SEED: u64 = 1 << 32;

/// The most tuning trials of a group: the points of the sequence.
pub const MOST: usize = 1 << 16;

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
    fn the_least_final_loss_is_picked_and_no_diverged_trial() {
        let outcome = |loss| Outcome { final_loss: loss, diverged: loss.is_none(), ..Outcome::default() };
        let outcomes = [None, Some(2.0), Some(1.0), Some(1.0), None].map(outcome);
        assert_eq!(pick(&outcomes.iter().collect::<Vec<_>>()), 2);
        assert_eq!(pick(&[&outcome(None), &outcome(None)]), 0);
    }
}
