//! The shortcut of residual networks.

use crate::{
    cpu::avg_pool2d::avg_pool2d,
    cpu::tensor::{Float, Reading, fail, is_ours, tensor, vec_written, with_float},
    device,
    graph::{differentiable, plain},
    shape::pool2d::Pool2d,
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// The shortcut without parameters (He et al. 2015, arXiv:1512.03385, option A): of images `x` (n, c, h, w) every `stride`-th pixel of
/// every `stride`-th row, and before and after the channels as many of zeros, one more after them if their number is odd, so
/// that there are `channels`: (n, channels, (h - 1) / stride + 1, (w - 1) / stride + 1).
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
    let sizes = Sizes { images, old: new / 2..new / 2 + old, channels, height, width, stride };
    if is_ours(x) && !device::runs(x) {
        return sizes.shortcut(x);
    }
    // The means of windows of one pixel.
    let pixels = avg_pool2d(x, Pool2d { kernel: (1, 1), stride, padding: 0 }, true)?;
    if new == 0 { Ok(pixels) } else { pixels.pad_with_zeros(1, new / 2, new - new / 2) }
}

struct Sizes {
    images: usize,
    /// Which of the channels are those of x.
    old: Range<usize>,
    channels: usize,
    height: usize,
    width: usize,
    stride: usize,
}

impl Sizes {
    fn out(&self) -> [usize; 2] {
        [self.height, self.width].map(|size| size.div_ceil(self.stride))
    }

    fn shortcut(self, x: &Tensor) -> Result<Tensor> {
        let ([input], [out_height, out_width]) = (plain([x])?, self.out());
        let (image, out) = (self.old.len() * self.height * self.width, self.channels * out_height * out_width);
        let y = with_float!("shortcut", x.dtype(), T => {
            let read = Reading::new(&input);
            let xs = read.slice::<T>()?;
            let write = |y: &mut [MaybeUninit<T>]| {
                let images = y.par_chunks_mut(out.max(1)).enumerate();
                images.for_each(|(index, y)| self.forward(&xs[index * image..][..image], y));
            };
            // SAFETY: every image is written.
            tensor(unsafe { vec_written(self.images * out, write) }, (self.images, self.channels, out_height, out_width))
        })?;
        let shape = x.shape().clone();
        differentiable("shortcut", &[x], y, move |dy| {
            with_float!("shortcut", dy.dtype(), T => {
                let read = Reading::new(dy);
                let dys = read.slice::<T>()?;
                let write = |dx: &mut [MaybeUninit<T>]| {
                    let images = dx.par_chunks_mut(image.max(1)).enumerate();
                    images.for_each(|(index, dx)| self.backward(&dys[index * out..][..out], dx));
                };
                // SAFETY: every image is written.
                Ok(vec![Some(tensor(unsafe { vec_written(self.images * image, write) }, &shape)?)])
            })
        })
    }

    /// Writes all of an image.
    fn forward<T: Float>(&self, x: &[T], y: &mut [MaybeUninit<T>]) {
        let [out_height, out_width] = self.out();
        let (before, rest) = y.split_at_mut(self.old.start * out_height * out_width);
        let (pixels, after) = rest.split_at_mut(self.old.len() * out_height * out_width);
        before.fill(MaybeUninit::new(T::zero()));
        after.fill(MaybeUninit::new(T::zero()));
        let planes = x.chunks_exact(self.height * self.width).zip(pixels.chunks_exact_mut(out_height * out_width));
        for (x, y) in planes {
            for (x, y) in x.chunks_exact(self.width).step_by(self.stride).zip(y.chunks_exact_mut(out_width)) {
                for (y, &x) in y.iter_mut().zip(x.iter().step_by(self.stride)) {
                    y.write(x);
                }
            }
        }
    }

    /// Writes all of an image's gradient.
    fn backward<T: Float>(&self, dy: &[T], dx: &mut [MaybeUninit<T>]) {
        let [out_height, out_width] = self.out();
        let pixels = out_height * out_width;
        dx.fill(MaybeUninit::new(T::zero()));
        let dy = &dy[self.old.start * pixels..self.old.end * pixels];
        for (dx, dy) in dx.chunks_exact_mut(self.height * self.width).zip(dy.chunks_exact(pixels)) {
            for (dx, dy) in dx.chunks_exact_mut(self.width).step_by(self.stride).zip(dy.chunks_exact(out_width)) {
                for (dx, &dy) in dx.iter_mut().step_by(self.stride).zip(dy) {
                    dx.write(dy);
                }
            }
        }
    }
}
