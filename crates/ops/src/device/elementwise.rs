//! Maps of elements.

use super::launch::{Launch, THREADS, args, empty_like};
use crate::graph::{differentiable, differentiable_by_output, plain};
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
    let [input] = plain([x])?;
    let y = map("relu", &[Some(&input)], &input)?;
    differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(map("relu_backward", &[Some(y), Some(dy)], y)?)]))
}

pub(crate) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let inputs = [a, b];
    let [a, b] = plain(inputs)?;
    let y = map("add_relu", &[Some(&a), Some(&b)], &a)?;
    differentiable_by_output("add_relu", &inputs, y, |y, dy| {
        let gradient = map("relu_backward", &[Some(y), Some(dy)], y)?;
        Ok(vec![Some(gradient.clone()), Some(gradient)])
    })
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let [input] = plain([x])?;
    let y = map("gelu", &[Some(&input)], &input)?;
    differentiable("gelu", &[x], y, move |dy| Ok(vec![Some(map("gelu_backward", &[Some(&input), Some(dy)], dy)?)]))
}
