//! Rectifiers.

use crate::{
    cpu, device,
    graph::{detached_contiguous, differentiable_by_output},
    reference,
    shape::error::fail,
    side::Side,
};
use candle_core::{Result, Tensor};

/// The rectifier: `y = max(x, 0)` of each element of a tensor of any shape.
///
/// NaN stays NaN. The gradient at 0 is 0, as in PyTorch (candle's is 1).
///
/// # Errors
/// When candle fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    match Side::of(x) {
        Side::Device => {
            let y = device::elementwise::relu(&detached_contiguous([x])?)?;
            differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(device::elementwise::masked(y, dy)?)]))
        }
        Side::Cpu => {
            let y = cpu::relu::relu(&detached_contiguous([x])?)?;
            differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(cpu::relu::masked("relu", y, dy)?)]))
        }
        Side::CpuInF32 | Side::Candle => reference::relu(x),
    }
}

/// The end of a residual block: `relu(a + b)` of two tensors of one shape, in one pass over the memory.
///
/// # Errors
/// When the shapes or dtypes of `a` and `b` differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        let [a, b] = [a, b].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("add_relu: {a} and {b} must have the same shape and dtype");
    }
    let inputs = [a, b];
    match Side::of(a) {
        Side::Device => {
            let y = device::elementwise::add_relu(&detached_contiguous(inputs)?)?;
            differentiable_by_output("add_relu", &inputs, y, |y, dy| {
                let gradient = device::elementwise::masked(y, dy)?;
                Ok(vec![Some(gradient.clone()), Some(gradient)])
            })
        }
        Side::Cpu => {
            let y = cpu::relu::add_relu(&detached_contiguous(inputs)?)?;
            differentiable_by_output("add_relu", &inputs, y, |y, dy| {
                let gradient = cpu::relu::masked("add_relu", y, dy)?;
                Ok(vec![Some(gradient.clone()), Some(gradient)])
            })
        }
        Side::CpuInF32 | Side::Candle => reference::add_relu(a, b),
    }
}
