//! Maps of elements.

use super::{
    launch::{Launch, THREADS, args},
    run::empty_like,
};
use candle_core::{Result, Tensor};

args!("elementwise", Elements { len: u64 });

/// The kernel `name` of tensors of one shape and dtype, one or two.
fn map(name: &'static str, inputs: &[Option<&Tensor>], like: &Tensor) -> Result<Tensor> {
    let (y, len) = (empty_like(like)?, like.elem_count());
    let launch = Launch { name, dtype: like.dtype(), args: Elements { len: len as u64 }, inputs, outputs: &[Some(&y)] };
    // SAFETY: all tensors have `len` elements of this dtype, and y is new.
    unsafe { launch.run(len.div_ceil(THREADS * 16 / like.dtype().size_in_bytes()))? };
    Ok(y)
}

/// The value of [`crate::relu()`].
pub(crate) fn relu([x]: &[Tensor; 1]) -> Result<Tensor> {
    map("relu", &[Some(x)], x)
}

/// The value of [`crate::add_relu()`].
pub(crate) fn add_relu([a, b]: &[Tensor; 2]) -> Result<Tensor> {
    map("add_relu", &[Some(a), Some(b)], a)
}

/// `dy`, and 0 where `y` is 0.
pub(crate) fn masked(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    map("relu_backward", &[Some(y), Some(dy)], y)
}

/// The value of [`crate::gelu()`].
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    map("gelu", &[Some(x)], x)
}

/// Its gradient by x.
pub(crate) fn gelu_gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    map("gelu_backward", &[Some(x), Some(dy)], dy)
}
