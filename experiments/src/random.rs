//! Seeded random streams.
//!
//! Every use of chance draws from its own stream, a pure function of the seed, what it is for and a number (the epoch, the
//! trial). No generator lives between two uses, so there is no state to save, and no draw can shift another: a parameter added
//! to a model leaves the initial values of all others as they were.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// What a random stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// The initial values of the parameter of this name.
    Init(&'a str),
    /// The order of an epoch's examples.
    Order,
    /// The augmentation of an epoch's examples.
    Augmentation,
    /// What the layer of this name drops in a step.
    Dropout(&'a str),
    /// The artificial language: its distributions, then its text.
    Language,
    /// Which training examples judge hyperparameters.
    Tuning,
    /// A resample of a bootstrap.
    Bootstrap,
    /// In which passes an image is mirrored, where it is in every second one.
    Mirror,
    /// Labels that are drawn from a model's own predictions in a step.
    Labels,
}

/// The stream of `seed` for `purpose` number `index`. Streams that differ in any of the three are independent.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let (tag, name) = match purpose {
        Purpose::Init(name) => (0u8, name),
        Purpose::Order => (1, ""),
        Purpose::Augmentation => (2, ""),
        Purpose::Dropout(name) => (3, name),
        Purpose::Language => (4, ""),
        Purpose::Tuning => (5, ""),
        Purpose::Bootstrap => (6, ""),
        Purpose::Labels => (7, ""),
        Purpose::Mirror => (8, ""),
    };
    let key = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(index.to_le_bytes())
        .chain_update([tag])
        .chain_update(name)
        .finalize();
    ChaCha8Rng::from_seed(key.into())
}

/// The order in which `epoch` visits `len` examples: a permutation of `0..len`.
pub fn order(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut stream(seed, Purpose::Order, epoch));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_repeat_and_differ_in_every_part_of_their_key() {
        let first = |seed, purpose, index| stream(seed, purpose, index).random::<u64>();
        let keys = [
            (0, Purpose::Order, 0),
            (1, Purpose::Order, 0),
            (0, Purpose::Order, 1),
            (0, Purpose::Augmentation, 0),
            (0, Purpose::Init(""), 0),
            (0, Purpose::Init("a"), 0),
            (0, Purpose::Init("b"), 0),
            (0, Purpose::Dropout("a"), 0),
            (0, Purpose::Dropout("b"), 0),
            (0, Purpose::Language, 0),
            (0, Purpose::Tuning, 0),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert_eq!(first(a.0, a.1, a.2), first(a.0, a.1, a.2));
            for b in &keys[i + 1..] {
                assert_ne!(first(a.0, a.1, a.2), first(b.0, b.1, b.2), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn an_order_is_a_permutation_and_changes_with_the_epoch() {
        let mut sorted = order(3, 0, 100);
        assert_ne!(sorted, order(3, 1, 100));
        assert_eq!(sorted, order(3, 0, 100));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
