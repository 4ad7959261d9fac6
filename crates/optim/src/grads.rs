//! What is done to gradients before a rule sees them: norms, clipping, accumulation.

use crate::backend::{self, Addition};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor, Var};

/// A limit on gradients, applied within the update's pass over the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All gradients are multiplied by `min(1, max_norm / (norm + 1e-6))`, the norm taken over all of them, as in PyTorch.
    GlobalNorm(f64),
    /// Each element is limited to `-max ..= max`.
    Value(f64),
}

impl Clip {
    pub(crate) fn check(self) -> Result<Self> {
        let (Clip::GlobalNorm(limit) | Clip::Value(limit)) = self;
        if limit > 0.0 {
            return Ok(self);
        }
        Err(Error::Value {
            rule: "clip".to_string(),
            key: if matches!(self, Clip::Value(_)) { "value" } else { "norm" }.to_string(),
            value: limit.to_string(),
            allowed: "a number > 0".to_string(),
        })
    }
}

/// The square root of the sum of squares over all tensors; the same bits for any number of threads. With a weight, each
/// value is first multiplied by that of the weight.
///
/// # Errors
/// A tensor that is not of floating point.
pub fn global_norm<'a>(tensors: impl IntoIterator<Item = (&'a Tensor, Option<&'a Tensor>)>) -> Result<f64> {
    let mut total = 0.0;
    for (tensor, weight) in tensors {
        total += backend::squared_norm(&tensor.contiguous()?, weight)?;
    }
    Ok(total.sqrt())
}

/// Sums of gradients over micro-batches, in f32 (f64 for f64 gradients).
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    sums: Vec<Option<Var>>,
    pub count: u64,
}

impl Accumulator {
    /// Adds the gradients of a micro-batch, by index of the parameter.
    pub fn add(&mut self, grads: Vec<Option<Tensor>>) -> Result<()> {
        self.sums.resize_with(grads.len(), || None);
        let mut additions = Vec::new();
        for (sum, grad) in self.sums.iter_mut().zip(grads) {
            let Some(grad) = grad else { continue };
            let dtype = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let grad = grad.to_dtype(dtype)?;
            match sum {
                Some(to) => additions.push(Addition { to, addend: grad.contiguous()?, scale: 1.0, adaptive: false }),
                None => *sum = Some(Var::from_tensor(&grad.force_contiguous()?)?),
            }
        }
        backend::add(additions)?;
        self.count += 1;
        Ok(())
    }

    /// The sums, leaving none.
    pub fn take(&mut self) -> (Vec<Option<Tensor>>, u64) {
        let count = std::mem::take(&mut self.count);
        let sums = std::mem::take(&mut self.sums);
        (sums.into_iter().map(|sum| sum.map(|s| s.into_inner())).collect(), count)
    }
}
