//! A forward pass through a model: what it is for, who watches, and what computes it.

use super::probe::Probe;
use crate::config::operations::Operations;
use candle_core::{DType, Result, Tensor};

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
}

/// What dropout's masks are drawn from: they are a function of these and of the layer's name, so all evaluations within a
/// step drop the same.
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

    /// The mean loss of `model` for inputs `x` and their labels, and the logits; both are f32.
    ///
    /// # Errors
    /// When candle fails, or shapes do not fit.
    pub fn loss(&self, model: &dyn Model, x: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = if x.dtype().is_float() { x.to_dtype(self.dtype)? } else { x.clone() };
        let logits = model.forward(&x, self)?.to_dtype(DType::F32)?;
        Ok((self.ops.cross_entropy(&logits, labels)?, logits))
    }

    /// Shows what `layer` puts out to the probe, if there is one.
    pub(super) fn activation(&self, layer: &str, x: &Tensor) -> Result<()> {
        self.probe.map_or(Ok(()), |probe| probe.activation(layer, x))
    }
}

/// A classifier of images, or of the characters that may come next.
pub trait Model: Send {
    /// The logits of images (n, channels, height, width) of the pass's type: (n, classes); or of tokens (n, context) of type u32:
    /// (n * context, vocabulary), the predictions of the tokens that follow each of them. They are of the pass's type.
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor>;
}
