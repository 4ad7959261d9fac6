//! Dropout (Srivastava et al. 2014, JMLR 15:1929) with masks of our own.

use super::forward::{ForwardContext, Mode};
use crate::random::{Purpose, stream};
use candle_core::{Result, Tensor, bail};
use ops::DropoutMasks;

/// Sets values to 0 with probability `rate` in training, and divides the others by `1 - rate`. Its masks are a function of
/// the pass's noise and the layer's name.
pub(super) struct Dropout {
    rate: f64,
    name: String,
}

impl Dropout {
    pub(super) fn new(rate: f64, name: impl Into<String>) -> Self {
        Self { rate, name: name.into() }
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        match self.draw(pass)? {
            None => Ok(x.clone()),
            Some(masks) => pass.ops.dropout(x, masks),
        }
    }

    /// The masks of this pass; none where nothing is dropped.
    pub(super) fn draw(&self, pass: &ForwardContext) -> Result<Option<DropoutMasks>> {
        if self.rate == 0.0 || !matches!(pass.mode, Mode::Train { .. }) {
            return Ok(None);
        }
        match pass.noise {
            Some(noise) => {
                let rng = stream(noise.seed, Purpose::Dropout(&self.name), noise.step);
                Ok(Some(DropoutMasks::new(self.rate, rng.get_seed())?))
            }
            None => bail!("{}: dropout = {} needs noise in training", self.name, self.rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::models::forward::Noise;
    use candle_core::{DType, Device};

    fn drop(name: &str, seed: u64, step: u64) -> Vec<f32> {
        let ones = Tensor::ones(10_000, DType::F32, &Device::Cpu).unwrap();
        let pass = ForwardContext::train(1).with_noise(Noise { seed, step });
        Dropout::new(0.2, name).forward(&ones, &pass).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn masks_depend_on_seed_step_and_name_only_and_keep_the_mean() {
        let first = drop("a", 0, 0);
        assert_eq!(first, drop("a", 0, 0));
        for other in [drop("b", 0, 0), drop("a", 1, 0), drop("a", 0, 1)] {
            assert_ne!(first, other);
        }
        assert!(first.iter().all(|&x| x == 0.0 || x == 1.25));
        let kept = first.iter().filter(|&&x| x > 0.0).count();
        // Five standard deviations of a binomial of 10,000 draws.
        assert!(kept.abs_diff(8000) < 200, "{kept}");
    }

    #[test]
    fn nothing_is_dropped_outside_training_or_at_rate_0() {
        let x = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        for (rate, pass) in [(0.5, ForwardContext::evaluate()), (0.0, ForwardContext::train(0))] {
            let y = Dropout::new(rate, "a").forward(&x, &pass).unwrap();
            assert_eq!(y.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        }
        let message = Dropout::new(0.5, "a").forward(&x, &ForwardContext::train(0)).unwrap_err().to_string();
        // candle appends a backtrace where the environment asks for one.
        assert_eq!(message.lines().next(), Some("a: dropout = 0.5 needs noise in training"));
    }
}
