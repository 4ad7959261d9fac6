//! Normalisation by the root of the mean square.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::rows::check_rows,
    side::Side,
};
use candle_core::{Result, Tensor};

/// RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), over the last dimension of a tensor `x` of any shape; `weight` has its length:
///
/// `y = x / sqrt(mean(x^2) + eps) * weight`.
///
/// It is PyTorch's `rms_norm`, whose eps is the dtype's (1.2e-7 for f32) if nothing is said.
///
/// # Errors
/// When `weight` is not (n), with n the last dimension of x and at least 1, or has another dtype.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check_rows("rms_norm", x, weight)?;
    let (inputs, wanted) = ([x, weight], [x, weight].map(Tensor::track_op));
    match Side::of(x) {
        Side::Device => {
            let (y, backward) = device::norm::rms_norm(detached_contiguous(inputs)?, eps, wanted)?;
            differentiable("rms_norm", &inputs, y, backward)
        }
        Side::Cpu => {
            let (y, backward) = cpu::rms_norm::rms_norm(detached_contiguous(inputs)?, eps, wanted)?;
            differentiable("rms_norm", &inputs, y, backward)
        }
        Side::CpuInF32 => rms_norm(&in_f32(x)?, &in_f32(weight)?, eps)?.to_dtype(x.dtype()),
        Side::Candle => reference::rms_norm(x, weight, eps),
    }
}
