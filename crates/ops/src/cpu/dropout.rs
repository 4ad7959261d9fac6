//! Dropout with masks of a seeded generator.

use crate::{
    cpu::tensor::{Float, Reading, fail, is_ours, tensor, with_float},
    device,
    graph::{differentiable, plain},
};
use candle_core::{Result, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What is dropped: as many masks as needed, each from a stream of its own of ChaCha8, so that they can be drawn in any order,
/// and again. A function of rate and seed alone.
#[derive(Clone, Debug)]
pub struct Masks {
    rate: f64,
    rng: ChaCha8Rng,
}

impl Masks {
    /// Each value is dropped with the probability `rate`.
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

    /// Whether each of the values of the mask of this number stays.
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

    /// `x`, or 0 where it is dropped by the first mask.
    fn apply<T: Float>(&self, x: &[T]) -> Vec<T> {
        let (mut stays, scale) = (self.mask(0), T::narrow(self.scale()));
        // A product, so that what is not a number stays that.
        x.iter().map(|&x| x * if stays() { scale } else { T::zero() }).collect()
    }
}

/// Dropout (Srivastava et al. 2014, JMLR 15:1929) of a tensor of any shape: 0 where the first of the masks drops a value, and
/// `x / (1 - rate)` elsewhere. No mask is kept for the gradient: it is drawn again.
///
/// # Errors
/// When candle fails.
pub fn dropout(x: &Tensor, masks: Masks) -> Result<Tensor> {
    if device::runs(x) {
        return device::dropout(x, &masks);
    }
    if is_ours(x) {
        let [input] = plain([x])?;
        let apply = move |x: &Tensor| with_float!("dropout", x.dtype(), T => tensor(masks.apply(Reading::new(x).slice::<T>()?), x.shape()));
        let y = apply(&input)?;
        return differentiable("dropout", &[x], y, move |dy| Ok(vec![Some(apply(dy)?)]));
    }
    let factors = masks.apply(&vec![1f32; x.elem_count()]);
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}
