//! A forward pass through a model: what it is for, who watches, and what computes it.

use super::probe::Probe;
use crate::{
    config::operations::Operations,
    random::{Purpose, stream},
};
use candle_core::{D, DType, Result, Tensor};
use rand::RngExt;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: batch norm uses the batch's statistics, and dropout drops.
    Train {
        /// Which evaluation of the loss within the step this is. SAM evaluates twice; running statistics move in the first
        /// evaluation (0) only.
        evaluation: usize,
    },
    /// Measuring: batch norm uses the running statistics, and nothing is dropped.
    Evaluate,
    /// Renewing the running statistics of batch norm: they become the mean of those of the batches so far, and nothing is dropped.
    Renew {
        /// The number of the batch, from 0.
        batch: u64,
    },
}

/// What dropout's masks, and labels that a model gives itself, are drawn from: they are a function of these (and of the layer's
/// name), so all evaluations within a step drop the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// The trial's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
}

/// A forward pass: what it is for, who watches, and whose operations compute it.
#[derive(Clone, Copy, Debug)]
pub struct ForwardContext<'a> {
    /// What it is for.
    pub mode: Mode,
    /// What the layers put out goes here.
    pub probe: Option<&'a Probe>,
    /// For training a model with dropout.
    pub noise: Option<Noise>,
    /// What it is computed by.
    pub ops: Operations,
    /// The type of what the layers put out.
    pub dtype: DType,
}

impl<'a> ForwardContext<'a> {
    /// To measure.
    pub fn evaluate() -> Self {
        Self { mode: Mode::Evaluate, probe: None, noise: None, ops: Operations::default(), dtype: DType::F32 }
    }

    /// To train: the evaluation of this number within a step, from 0.
    pub fn train(evaluation: usize) -> Self {
        Self { mode: Mode::Train { evaluation }, ..Self::evaluate() }
    }

    /// The same, watched by `probe`.
    pub fn with_probe(self, probe: &'a Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// The same, with dropout drawn from `noise`.
    pub fn with_noise(self, noise: Noise) -> Self {
        Self { noise: Some(noise), ..self }
    }

    /// The same, by these operations.
    pub fn with_ops(self, ops: Operations) -> Self {
        Self { ops, ..self }
    }

    /// The same, with layers that put out this type.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The mean loss of `model` for inputs `x` and their labels, which training smooths if the model says so, and the logits; both are f32.
    ///
    /// # Errors
    /// When candle fails, or shapes do not fit.
    pub fn loss(&self, model: &dyn Model, x: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = if x.dtype().is_float() { x.to_dtype(self.dtype)? } else { x.clone() };
        let logits = model.forward(&x, self)?.to_dtype(DType::F32)?;
        let loss = self.ops.cross_entropy(&logits, labels)?;
        let smoothing = model.smoothing();
        if smoothing == 0.0 || !matches!(self.mode, Mode::Train { .. }) {
            return Ok((loss, logits));
        }
        // With the label's logit z and the logsumexp l: (1 - s) (l - z) + s (l - mean) = (l - z) + s (z - mean).
        let label = logits.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?;
        let smoothed = (loss + ((label - logits.mean_all()?)? * smoothing)?)?;
        Ok((smoothed, logits))
    }

    /// The mean loss of `model` for inputs `x` with labels that are drawn from its own predictions: a function of `noise` and these.
    ///
    /// # Errors
    /// When candle fails, or shapes do not fit.
    pub fn loss_of_drawn_labels(&self, model: &dyn Model, x: &Tensor, noise: Noise) -> Result<Tensor> {
        let x = if x.dtype().is_float() { x.to_dtype(self.dtype)? } else { x.clone() };
        let logits = model.forward(&x, self)?.to_dtype(DType::F32)?;
        self.ops.cross_entropy(&logits, &drawn_labels(&logits, noise)?)
    }

    /// Shows what `layer` puts out to the probe, if there is one.
    pub(super) fn activation(&self, layer: &str, x: &Tensor) -> Result<()> {
        self.probe.map_or(Ok(()), |probe| probe.activation(layer, x))
    }
}

/// A label for each row of `logits`, each class with the probability that its row gives it: the largest logit of those to which
/// Gumbel's noise `-ln(-ln(u))` is added.
fn drawn_labels(logits: &Tensor, noise: Noise) -> Result<Tensor> {
    let mut rng = stream(noise.seed, Purpose::Labels, noise.step);
    let gumbel = |_| (-(-rng.random_range(f64::MIN_POSITIVE..1.0).ln()).ln()) as f32;
    let gumbel: Vec<f32> = (0..logits.elem_count()).map(gumbel).collect();
    let gumbel = Tensor::from_vec(gumbel, logits.shape(), logits.device())?;
    (logits.detach() + gumbel)?.argmax(D::Minus1)
}

/// A classifier of images, or of the characters that may come next.
pub trait Model: Send {
    /// The logits of images (n, channels, height, width) of the pass's type: (n, classes); or of tokens (n, context) of type u32:
    /// (n * context, vocabulary), the predictions of the tokens that follow each of them. They are of the pass's type.
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor>;
    /// How often it goes forward for an image that it is evaluated on.
    fn views(&self) -> usize {
        1
    }
    /// What share of each label goes to all classes alike, in training.
    fn smoothing(&self) -> f64 {
        0.0
    }
    /// How many training images it wants to see before the first update.
    fn examples_to_begin(&self) -> usize {
        0
    }
    /// Fits what does not learn to training images, before the first update.
    fn begin(&self, _examples: &Tensor) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn labels_are_drawn_as_often_as_a_model_predicts_them() {
        let probabilities = [0.5f32, 0.3, 0.15, 0.05];
        const ROWS: usize = 20_000;
        let row: Vec<f32> = probabilities.iter().map(|p| p.ln() + 7.0).collect();
        let logits = Tensor::new(row, &Device::Cpu).unwrap().broadcast_as((ROWS, 4)).unwrap().contiguous().unwrap();
        let drawn =
            |seed, step| -> Vec<u32> { drawn_labels(&logits, Noise { seed, step }).unwrap().to_vec1().unwrap() };
        let labels = drawn(3, 7);
        for (class, expected) in probabilities.iter().enumerate() {
            let share = labels.iter().filter(|label| **label == class as u32).count() as f64 / ROWS as f64;
            assert!((share - f64::from(*expected)).abs() < 0.02, "{class}: {share}, not {expected}");
        }
        assert_eq!(labels, drawn(3, 7));
        assert!(labels != drawn(3, 8) && labels != drawn(4, 7));
    }
}
