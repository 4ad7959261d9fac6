//! Limits on gradients, and their norm.

use crate::backend::device::tables::Tables;
use crate::backend::step;
use crate::error::{Error, Result};
use candle_core::Tensor;

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
    Ok(step::global_norm(&mut Tables::default(), &tensors, 1.0, f64::INFINITY, 0)?.read()?)
}
