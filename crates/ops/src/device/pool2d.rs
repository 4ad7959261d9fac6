//! Maxima and means of windows.

use super::{
    launch::{Launch, THREADS, args, size},
    run::empty,
};
use crate::shape::{gradients::Backward, pool2d::Pooling};
use candle_core::{Result, Tensor};

args!(
    "pool2d",
    Windows {
        len: u32,
        out_len: u32,
        height: u32,
        width: u32,
        out_height: u32,
        out_width: u32,
        kernel_height: u32,
        kernel_width: u32,
        stride: u32,
        padding: u32,
        count_padding: u32,
        unused: u32,
    }
);

impl Windows {
    fn new(op: &str, p: &Pooling, count_padding: bool) -> Result<Self> {
        let number = |name: &str, value: usize| size(op, name, value);
        // The sum of a place and the padding is a number too.
        number("pixels of a side", p.height.max(p.width) + 2 * p.pool.padding)?;
        Ok(Self {
            len: number("pixels", p.images * p.channels * p.pixels())?,
            out_len: number("windows", p.images * p.channels * p.out_pixels())?,
            height: number("rows", p.height)?,
            width: number("columns", p.width)?,
            out_height: number("rows of windows", p.out_height)?,
            out_width: number("columns of windows", p.out_width)?,
            kernel_height: number("rows of a window", p.pool.kernel.0)?,
            kernel_width: number("columns of a window", p.pool.kernel.1)?,
            // One that is larger than an image has one window.
            stride: p.pool.stride.min(1 << 31) as u32,
            padding: number("padding", p.pool.padding)?,
            count_padding: count_padding.into(),
            unused: 0,
        })
    }
}

/// The value of [`crate::max_pool2d()`], and its gradient.
pub(crate) fn max_pool2d(x: &Tensor, pooling: &Pooling) -> Result<(Tensor, impl Backward + use<>)> {
    pool2d(["max_pool2d", "max_pool2d_backward"], x, pooling, false)
}

/// The value of [`crate::avg_pool2d()`], and its gradient.
pub(crate) fn avg_pool2d(
    x: &Tensor,
    pooling: &Pooling,
    count_padding: bool,
) -> Result<(Tensor, impl Backward + use<>)> {
    pool2d(["avg_pool2d", "avg_pool2d_backward"], x, pooling, count_padding)
}

fn pool2d(
    [name, backward]: [&'static str; 2],
    x: &Tensor,
    p: &Pooling,
    count_padding: bool,
) -> Result<(Tensor, impl Backward + use<>)> {
    let (dtype, args) = (x.dtype(), Windows::new(name, p, count_padding)?);
    let y = empty(p.output_shape(), dtype, x.device())?;
    let launch = Launch { name, dtype, args, inputs: &[Some(x)], outputs: &[Some(&y)] };
    // SAFETY: x and y have planes of these sizes, whose windows have a pixel each at least; y is new.
    unsafe { launch.run((args.out_len as usize).div_ceil(THREADS))? };
    // A mean needs no x.
    let (kept, shape) = ((name == "max_pool2d").then(|| x.clone()), x.shape().clone());
    let backward = move |dy: &Tensor| {
        let dx = empty(&shape, dtype, dy.device())?;
        let inputs: Vec<Option<&Tensor>> = kept.iter().chain([dy]).map(Some).collect();
        let launch = Launch { name: backward, dtype, args, inputs: &inputs, outputs: &[Some(&dx)] };
        // SAFETY: dy has y's shape and dx, which is new, x's.
        unsafe { launch.run((args.len as usize).div_ceil(THREADS))? };
        Ok(vec![Some(dx)])
    };
    Ok((y, backward))
}
