//! Rows of a table by their indices.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::error::fail,
    side::Side,
};
use candle_core::{DType, Result, Tensor};

/// The rows of `weight` (rows, d) that the `indices` (u32, of any shape) name. The output has the shape of the indices, and d.
///
/// The gradient of a row is the sum over the places that have its index, in their order.
///
/// # Errors
/// When `weight` is not (rows, d) with d of at least 1, the indices are not u32, or one is not below the number of rows. Those on a GPU
/// are not looked at: an index that is too large gives a row of NaN, and has no gradient.
pub fn embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let &[rows, width] = weight.dims() else { fail!("embedding: weight {:?} must be (rows, d)", weight.shape()) };
    if width == 0 {
        fail!("embedding: weight {:?} must have columns", weight.shape());
    }
    if indices.dtype() != DType::U32 {
        fail!("embedding: the indices are {:?} and must be U32", indices.dtype());
    }
    let indices = indices.contiguous()?;
    let side = Side::of(weight);
    if indices.device().is_cpu() && !matches!(side, Side::Device) {
        cpu::embedding::check_indices(&indices, rows)?;
    }
    match side {
        Side::Device if indices.elem_count() > 0 => {
            let inputs = [weight, &indices];
            let (y, backward) = device::embedding::embedding(detached_contiguous(inputs)?)?;
            differentiable("embedding", &inputs, y, backward)
        }
        Side::Cpu => on_cpu(weight, &indices),
        Side::CpuInF32 => on_cpu(&in_f32(weight)?, &indices)?.to_dtype(weight.dtype()),
        Side::Device | Side::Candle => reference::embedding(weight, &indices),
    }
}

fn on_cpu(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let inputs = [weight, indices];
    let (y, backward) = cpu::embedding::embedding(detached_contiguous(inputs)?)?;
    differentiable("embedding", &inputs, y, backward)
}
