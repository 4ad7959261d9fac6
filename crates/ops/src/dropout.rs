//! Dropout with masks of a seeded generator.

use crate::{
    cpu::{self, tensor::cpu_supports},
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::dropout::DropoutMasks,
};
use candle_core::{Result, Tensor};

/// Dropout (Srivastava et al. 2014, JMLR 15:1929) of a tensor of any shape: 0 where the first of the masks drops a value, and
/// `x / (1 - rate)` elsewhere. No mask is kept for the gradient: it is drawn again.
///
/// # Errors
/// When candle fails.
pub fn dropout(x: &Tensor, masks: DropoutMasks) -> Result<Tensor> {
    // It is its own gradient.
    let apply = match has_kernels(x) {
        true => device::dropout::dropout,
        false if cpu_supports(x) => cpu::dropout::dropout,
        false => return reference::dropout(x, &masks),
    };
    let [input] = detached_contiguous([x])?;
    let y = apply(&input, &masks)?;
    differentiable("dropout", &[x], y, move |dy| Ok(vec![Some(apply(dy, &masks)?)]))
}
