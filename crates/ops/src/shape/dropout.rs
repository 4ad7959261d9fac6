//! The masks of dropout.

use super::error::fail;
use candle_core::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What [`dropout`](crate::dropout()) and [`causal_attention`](crate::causal_attention()) drop: as many masks as needed, a function of
/// rate and seed alone.
///
/// Each is from a stream of its own of ChaCha8, so that they can be drawn in any order, and again.
#[derive(Clone, Debug)]
pub struct DropoutMasks {
    rate: f64,
    rng: ChaCha8Rng,
}

impl DropoutMasks {
    /// Masks that drop each value with the probability `rate`.
    ///
    /// # Errors
    /// When the rate is not in 0..1.
    pub fn new(rate: f64, seed: [u8; 32]) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            fail!("dropout: the rate is {rate} and must be at least 0 and below 1");
        }
        Ok(Self { rate, rng: ChaCha8Rng::from_seed(seed) })
    }

    /// What a value that stays is multiplied by: `1 / (1 - rate)`.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - self.rate)
    }

    /// The mask of this number: a function that says of one value after the other whether it stays.
    pub fn mask(&self, index: usize) -> impl FnMut() -> bool + use<> {
        let mut rng = self.rng.clone();
        rng.set_stream(index as u64);
        let dropped = self.dropped();
        move || rng.next_u32() >= dropped
    }

    /// The random numbers below it drop.
    pub(crate) fn dropped(&self) -> u32 {
        (self.rate * 2f64.powi(32)) as u32
    }

    /// The generator's key.
    pub(crate) fn key(&self) -> [u32; 8] {
        let seed = self.rng.get_seed();
        std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|k| seed[4 * i + k])))
    }
}
