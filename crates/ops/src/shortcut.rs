//! The shortcut of residual networks.

use crate::{
    avg_pool2d::avg_pool2d,
    cpu::shortcut::Sizes,
    graph::{detached_contiguous, differentiable},
    shape::{error::fail, pool2d::Pool2dOptions},
    side::Side,
};
use candle_core::{Result, Tensor};

/// The shortcut of residual networks without parameters (He et al. 2015, arXiv:1512.03385, option A) of images `x` (n, c, h, w):
/// (n, channels, (h - 1) / stride + 1, (w - 1) / stride + 1).
///
/// It takes every `stride`-th pixel of every `stride`-th row. It puts channels of zeros before and after those of x, as many on both
/// sides; if their number is odd, there is one more after them.
///
/// # Errors
/// When `x` is not (n, c, h, w) with a pixel, the stride is 0, or `channels` is below c.
pub fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    let &[images, old, height, width] = x.dims() else { fail!("shortcut: x {:?} must be (n, c, h, w)", x.shape()) };
    if stride == 0 || height * width == 0 {
        fail!("shortcut: x {:?} must have a pixel, and the stride {stride} must be at least 1", x.shape());
    }
    let Some(new) = channels.checked_sub(old) else {
        fail!("shortcut: the number of channels is {channels} and must be at least that of x {:?}", x.shape());
    };
    if matches!(Side::of(x), Side::Cpu) {
        let sizes = Sizes { images, old: new / 2..new / 2 + old, channels, height, width, stride };
        let [input] = detached_contiguous([x])?;
        let (y, backward) = sizes.shortcut(&input)?;
        return differentiable("shortcut", &[x], y, backward);
    }
    // The means of windows of one pixel.
    let pixels = avg_pool2d(x, Pool2dOptions { kernel: (1, 1), stride, padding: 0 }, true)?;
    if new == 0 { Ok(pixels) } else { pixels.pad_with_zeros(1, new / 2, new - new / 2) }
}
