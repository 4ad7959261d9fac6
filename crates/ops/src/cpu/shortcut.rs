//! The shortcut of residual networks: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        tensor::{Reading, tensor, vec_written},
    },
    shape::gradients::Backward,
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// The sizes of a shortcut whose shapes fit.
pub(crate) struct Sizes {
    pub images: usize,
    /// Which channels of the output are those of x.
    pub old: Range<usize>,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub stride: usize,
}

impl Sizes {
    fn out(&self) -> [usize; 2] {
        [self.height, self.width].map(|size| size.div_ceil(self.stride))
    }

    /// The value of [`crate::shortcut()`], and its gradient.
    pub fn shortcut(self, x: &Tensor) -> Result<(Tensor, impl Backward + use<>)> {
        let [out_height, out_width] = self.out();
        let (image, out) = (self.old.len() * self.height * self.width, self.channels * out_height * out_width);
        let y = with_float!("shortcut", x.dtype(), T => {
            let read = Reading::new(x);
            let xs = read.slice::<T>()?;
            let write = |y: &mut [MaybeUninit<T>]| {
                let images = y.par_chunks_mut(out.max(1)).enumerate();
                images.for_each(|(index, y)| self.forward(&xs[index * image..][..image], y));
            };
            // SAFETY: every image is written.
            tensor(unsafe { vec_written(self.images * out, write) }, (self.images, self.channels, out_height, out_width))
        })?;
        let shape = x.shape().clone();
        let gradients = move |dy: &Tensor| {
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
        };
        Ok((y, gradients))
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
