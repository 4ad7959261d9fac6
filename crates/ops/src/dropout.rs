//! Dropout with masks of a seeded generator.

use crate::{
    cpu, device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::dropout::DropoutMasks,
    side::Side,
};
use candle_core::{Result, Tensor};

/// Dropout (Srivastava et al. 2014, JMLR 15:1929) of a tensor of any shape: 0 where the first of the `masks` drops a value, and
/// `x / (1 - rate)` elsewhere.
///
/// No mask is kept for the gradient: it is drawn again.
///
/// # Errors
/// When candle fails.
pub fn dropout(x: &Tensor, masks: DropoutMasks) -> Result<Tensor> {
    // It is its own gradient.
    let apply = match Side::of(x) {
        Side::Device => device::dropout::dropout,
        Side::Cpu => cpu::dropout::dropout,
        Side::CpuInF32 | Side::Candle => return reference::dropout(x, &masks),
    };
    let [input] = detached_contiguous([x])?;
    let y = apply(&input, &masks)?;
    differentiable("dropout", &[x], y, move |dy| Ok(vec![Some(apply(dy, &masks)?)]))
}
