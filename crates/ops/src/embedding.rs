//! Rows of a table by their indices.

use crate::{
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::error::fail,
};
use candle_core::{DType, Result, Tensor};

/// The rows of `weight` (rows, d) that the `indices` (u32, of any shape) name: the shape of the indices, and d.
///
/// The gradient of a row is the sum over the places that have its index, in their order: the same bits for any number of threads.
///
/// # Errors
/// When `weight` is not (rows, d) with d of at least 1, the indices are not u32, or one is not below the number of rows (those on
/// a GPU are not looked at: such an index gives a row of NaN, and has no gradient).
pub fn embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let &[rows, width] = weight.dims() else { fail!("embedding: weight {:?} must be (rows, d)", weight.shape()) };
    if width == 0 {
        fail!("embedding: weight {:?} must have columns", weight.shape());
    }
    if indices.dtype() != DType::U32 {
        fail!("embedding: the indices are {:?} and must be U32", indices.dtype());
    }
    let indices = indices.contiguous()?;
    if indices.device().is_cpu() && !has_kernels(weight) {
        cpu::embedding::check_indices(&indices, rows)?;
    }
    if has_kernels(weight) && indices.elem_count() > 0 {
        let inputs = [weight, &indices];
        let (y, backward) = device::embedding::embedding(detached_contiguous(inputs)?)?;
        return differentiable("embedding", &inputs, y, backward);
    }
    if cpu_supports(weight) {
        return on_cpu(weight, &indices);
    }
    if is_half_on_cpu(weight) {
        return on_cpu(&in_f32(weight)?, &indices)?.to_dtype(weight.dtype());
    }
    reference::embedding(weight, &indices)
}

fn on_cpu(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let inputs = [weight, indices];
    let (y, backward) = cpu::embedding::embedding(detached_contiguous(inputs)?)?;
    differentiable("embedding", &inputs, y, backward)
}
