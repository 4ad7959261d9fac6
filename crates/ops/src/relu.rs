//! Rectifiers.

use crate::{
    cpu::{self, tensor::cpu_supports},
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable_by_output},
    reference,
    shape::error::fail,
};
use candle_core::{Result, Tensor};

/// `y = x`, and 0 where that is negative; NaN stays NaN. The gradient at 0 is 0, as in PyTorch (in candle it is 1).
///
/// # Errors
/// When candle fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x) {
        let y = device::elementwise::relu(&detached_contiguous([x])?)?;
        return differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(device::elementwise::masked(y, dy)?)]));
    }
    if !cpu_supports(x) {
        return reference::relu(x);
    }
    let y = cpu::relu::relu(&detached_contiguous([x])?)?;
    differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(cpu::relu::masked("relu", y, dy)?)]))
}

/// `relu(a + b)` in one pass, for two tensors of one shape: the end of a residual block.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        let [a, b] = [a, b].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("add_relu: {a} and {b} must have the same shape and dtype");
    }
    let inputs = [a, b];
    if has_kernels(a) {
        let y = device::elementwise::add_relu(&detached_contiguous(inputs)?)?;
        return differentiable_by_output("add_relu", &inputs, y, |y, dy| {
            let gradient = device::elementwise::masked(y, dy)?;
            Ok(vec![Some(gradient.clone()), Some(gradient)])
        });
    }
    if !cpu_supports(a) {
        return reference::add_relu(a, b);
    }
    let y = cpu::relu::add_relu(&detached_contiguous(inputs)?)?;
    differentiable_by_output("add_relu", &inputs, y, |y, dy| {
        let gradient = cpu::relu::masked("add_relu", y, dy)?;
        Ok(vec![Some(gradient.clone()), Some(gradient)])
    })
}
