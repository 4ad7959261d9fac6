//! Maps of elements.

use super::{
    graph::differentiable,
    launch::{Launch, THREADS, args, empty_like},
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

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = map("relu", &[Some(&x)], &x)?;
    differentiable("relu", &[&x], y, |_, y, dy| Ok(vec![Some(map("relu_backward", &[Some(y), Some(dy)], y)?)]))
}

pub(crate) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let y = map("add_relu", &[Some(&a), Some(&b)], &a)?;
    differentiable("add_relu", &[&a, &b], y, |_, y, dy| {
        let gradient = map("relu_backward", &[Some(y), Some(dy)], y)?;
        Ok(vec![Some(gradient.clone()), Some(gradient)])
    })
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = map("gelu", &[Some(&x)], &x)?;
    differentiable("gelu", &[&x], y, |x, _, dy| Ok(vec![Some(map("gelu_backward", &[Some(&x[0]), Some(dy)], dy)?)]))
}
