//! Passes over the planes of a channel: what batch norm and scale-shift are made of.
//!
//! A channel of images (n, c, h, w) is n planes of h w pixels, apart in memory. A task takes a whole channel, so sums are
//! formed in the same order by any number of threads, and the second pass finds the channel in the cache.

use crate::host::Float;
use candle_core::Shape;
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Sums that run side by side.
const LANES: usize = 16;

/// The sizes of images as a channel sees them.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub channels: usize,
    pub pixels: usize,
}

impl Channels {
    /// Of images (n, c, h, w).
    pub fn of(images: &Shape) -> Self {
        let dims = images.dims();
        Self { channels: dims[1], pixels: dims[2] * dims[3] }
    }

    /// The planes of each channel.
    fn split<T>(self, images: &mut [T]) -> Vec<Vec<&mut [T]>> {
        let mut split: Vec<Vec<&mut [T]>> = Vec::new();
        split.resize_with(self.channels, Vec::new);
        for (index, plane) in images.chunks_mut(self.pixels.max(1)).enumerate() {
            split[index % self.channels].push(plane);
        }
        split
    }

    /// The planes of one channel.
    pub fn planes<T>(self, images: &[T], channel: usize) -> impl Iterator<Item = &[T]> + Clone {
        images.chunks(self.pixels.max(1)).skip(channel).step_by(self.channels)
    }

    /// New images of `len` elements, and what `f` returns for each channel, in order: it is called in parallel with each
    /// channel and its planes.
    ///
    /// # Safety
    /// `f` writes all elements of the planes.
    pub unsafe fn make<T: Send, R: Send>(
        self,
        len: usize,
        f: impl Fn(usize, Vec<&mut [MaybeUninit<T>]>) -> R + Sync,
    ) -> (Vec<T>, Vec<R>) {
        let mut images = Box::new_uninit_slice(len);
        let planes = self.split(&mut images).into_par_iter().enumerate();
        let results = planes.map(|(channel, planes)| f(channel, planes)).collect();
        // SAFETY: every element is of a plane, and the caller promises that those are written.
        (unsafe { images.assume_init() }.into_vec(), results)
    }
}

/// `y = (x - center) scale + shift`, and 0 where that is negative if a rectifier follows.
#[derive(Clone, Copy)]
pub(crate) struct Affine<T> {
    pub center: T,
    pub scale: T,
    pub shift: T,
}

impl<T: Float> Affine<T> {
    pub fn apply(self, relu: bool, x: &[T], y: &mut [MaybeUninit<T>]) {
        match relu {
            true => apply::<T, true>(self, x, y),
            false => apply::<T, false>(self, x, y),
        }
    }

    /// The sums over the planes of `g` and of `g (x - center)`, where `g` is the gradient by y, or 0 where the rectifier is.
    pub fn sums<'a>(self, relu: bool, planes: impl Iterator<Item = (&'a [T], &'a [T])>) -> [f64; 2] {
        let mut sums = [[0.0; LANES]; 2];
        for (x, dy) in planes {
            match relu {
                true => add_sums::<T, true>(self, x, dy, &mut sums),
                false => add_sums::<T, false>(self, x, dy, &mut sums),
            }
        }
        sums.map(|lanes| lanes.iter().sum())
    }

    /// `dx = scale g`
    pub fn gradient(self, relu: bool, x: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
        let none = [T::zero(); 2];
        match relu {
            true => gradient::<T, true, false>(self, none, x, dy, dx),
            false => gradient::<T, false, false>(self, none, x, dy, dx),
        }
    }

    /// `dx = scale (g - mean - slope (x - center))`
    pub fn normalized_gradient(self, relu: bool, [mean, slope]: [T; 2], x: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
        match relu {
            true => gradient::<T, true, true>(self, [mean, slope], x, dy, dx),
            false => gradient::<T, false, true>(self, [mean, slope], x, dy, dx),
        }
    }

    /// The gradient that passes the rectifier. PyTorch's convention: none at 0, and NaN does not stop it.
    #[inline(always)]
    fn through<const RELU: bool>(self, x: T, dy: T) -> T {
        if RELU && (x - self.center) * self.scale + self.shift <= T::zero() { T::zero() } else { dy }
    }
}

/// Mean and biased variance of the planes. Summed in f64 and from the first pixel on, so that a mean far from 0 does not
/// cancel the variance.
pub(crate) fn moments<'a, T: Float>(planes: impl Iterator<Item = &'a [T]> + Clone) -> (f64, f64) {
    let Some(&first) = planes.clone().flatten().next() else { return (f64::NAN, f64::NAN) };
    let (mut sums, mut count) = ([[0.0; LANES]; 2], 0);
    for plane in planes {
        add_moments(first.wide(), plane, &mut sums);
        count += plane.len();
    }
    let [sum, squares] = sums.map(|lanes| lanes.iter().sum::<f64>());
    let (count, mean) = (count as f64, sum / count as f64);
    let variance = squares / count - mean * mean;
    (first.wide() + mean, variance.rectified())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_moments<T: Float>(from: f64, plane: &[T], sums: &mut [[f64; LANES]; 2]) {
    let [mut sum, mut squares] = *sums;
    let mut add = |lane: usize, x: T| {
        let x = x.wide() - from;
        sum[lane] += x;
        squares[lane] += x * x;
    };
    let blocks = plane.chunks_exact(LANES);
    blocks.remainder().iter().enumerate().for_each(|(lane, &x)| add(lane, x));
    for block in blocks {
        block.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
    }
    *sums = [sum, squares];
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn apply<T: Float, const RELU: bool>(affine: Affine<T>, x: &[T], y: &mut [MaybeUninit<T>]) {
    let Affine { center, scale, shift } = affine;
    for (y, &x) in y.iter_mut().zip(x) {
        let value = (x - center) * scale + shift;
        y.write(if RELU { value.rectified() } else { value });
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_sums<T: Float, const RELU: bool>(affine: Affine<T>, x: &[T], dy: &[T], sums: &mut [[f64; LANES]; 2]) {
    let [mut sum, mut product] = *sums;
    let mut add = |lane: usize, x: T, dy: T| {
        let g = affine.through::<RELU>(x, dy).wide();
        sum[lane] += g;
        product[lane] += g * (x - affine.center).wide();
    };
    let (xs, dys) = (x.chunks_exact(LANES), dy.chunks_exact(LANES));
    xs.remainder().iter().zip(dys.remainder()).enumerate().for_each(|(lane, (&x, &dy))| add(lane, x, dy));
    for (x, dy) in xs.zip(dys) {
        x.iter().zip(dy).enumerate().for_each(|(lane, (&x, &dy))| add(lane, x, dy));
    }
    *sums = [sum, product];
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn gradient<T: Float, const RELU: bool, const NORMALIZED: bool>(
    affine: Affine<T>,
    [mean, slope]: [T; 2],
    x: &[T],
    dy: &[T],
    dx: &mut [MaybeUninit<T>],
) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        let g = affine.through::<RELU>(x, dy);
        let g = if NORMALIZED { g - mean - (x - affine.center) * slope } else { g };
        dx.write(affine.scale * g);
    }
}
