//! Layer normalisation.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::rows::check_rows,
    side::Side,
};
use candle_core::{Result, Tensor};

/// Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) without a bias, over the last dimension of a tensor `x` of any
/// shape; `weight` has its length. With the mean and the biased variance over that dimension it is
///
/// `y = (x - mean) / sqrt(variance + eps) * weight`.
///
/// # Errors
/// When `weight` is not (n), with n the last dimension of x and at least 1, or has another dtype.
pub fn layer_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check_rows("layer_norm", x, weight)?;
    let (inputs, wanted) = ([x, weight], [x, weight].map(Tensor::track_op));
    match Side::of_f32(x) {
        Side::Device => {
            let (y, backward) = device::norm::layer_norm(detached_contiguous(inputs)?, eps, wanted)?;
            differentiable("layer_norm", &inputs, y, backward)
        }
        Side::Cpu => {
            let (y, backward) = cpu::layer_norm::layer_norm(detached_contiguous(inputs)?, eps as f32, wanted)?;
            differentiable("layer_norm", &inputs, y, backward)
        }
        Side::CpuInF32 => layer_norm(&in_f32(x)?, &in_f32(weight)?, eps)?.to_dtype(x.dtype()),
        Side::Candle => reference::layer_norm(x, weight, eps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};

    /// 70 rows make two tasks, and 19 columns do not fill the lanes.
    #[test]
    fn values_and_gradients() {
        let weight = (wave(&[19], 0.5, 2.0) + 1.0).unwrap();
        check([&wave(&[2, 35, 19], 3.0, 0.0), &weight], |[x, weight]| layer_norm(x, weight, 1e-5));
    }
}
