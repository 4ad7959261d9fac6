//! What is done to gradients before a rule sees them: norms, clipping, accumulation.

use crate::backend::{self, Addition, Tables};
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
        Err(Error::OutOfRange {
            rule: "clip".to_string(),
            key: if matches!(self, Clip::Value(_)) { "value" } else { "norm" }.to_string(),
            value: limit.to_string(),
            allowed: "a number > 0".to_string(),
        })
    }
}

/// The square root of the sum of squares over all tensors, which are on one device; the same bits for any number of threads.
/// With a weight, each value is first multiplied by that of the weight. On a GPU this waits for the result.
///
/// # Errors
/// A tensor that is not of floating point.
pub fn global_norm<'a>(tensors: impl IntoIterator<Item = (&'a Tensor, Option<&'a Tensor>)>) -> Result<f64> {
    let contiguous = |(tensor, weight): (&Tensor, Option<&Tensor>)| {
        Ok((tensor.contiguous()?, weight.map(Tensor::contiguous).transpose()?))
    };
    let tensors = tensors.into_iter().map(contiguous).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<_> = tensors.iter().map(|(tensor, weight)| (tensor, weight.as_ref())).collect();
    Ok(backend::global_norm(&mut Tables::default(), &tensors, 1.0, f64::INFINITY, 0)?.read()?)
}

/// Sums of gradients over micro-batches, in f32 (f64 for f64 gradients).
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    sums: Vec<Option<Var>>,
    pub count: u64,
    tables: Tables,
}

impl Accumulator {
    /// Adds the gradients of a micro-batch, by index of the parameter. Where it fails, nothing was added.
    pub fn add(&mut self, grads: Vec<Option<Tensor>>) -> Result<()> {
        self.sums.resize_with(grads.len(), || None);
        let (mut additions, mut first) = (Vec::new(), Vec::new());
        for (index, (sum, grad)) in self.sums.iter().zip(grads).enumerate() {
            let Some(grad) = grad else { continue };
            match sum {
                Some(to) => additions.push(Addition { to, addend: grad, scale: 1.0, by_norm: None, adaptive: false }),
                None => {
                    let dtype = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
                    let copy =
                        if grad.dtype() == dtype { backend::copy(&grad)? } else { backend::to_dtype(&grad, dtype)? };
                    first.push((index, Var::from_tensor(&copy)?));
                }
            }
        }
        backend::add(&mut self.tables, additions)?;
        first.into_iter().for_each(|(index, sum)| self.sums[index] = Some(sum));
        self.count += 1;
        Ok(())
    }

    /// The sums by index of the parameter, for ever `None` behind the last that has one.
    pub fn sums(&self) -> impl Iterator<Item = Option<Tensor>> {
        self.sums.iter().map(|sum| sum.as_ref().map(|s| s.as_tensor().clone())).chain(std::iter::repeat(None))
    }

    /// Drops the sum of a parameter.
    pub fn drop_sum(&mut self, index: usize) {
        if let Some(sum) = self.sums.get_mut(index) {
            *sum = None;
        }
    }

    /// Drops all sums.
    pub fn clear(&mut self) {
        self.sums.clear();
        self.count = 0;
    }
}
