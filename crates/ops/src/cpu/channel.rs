//! Passes over the planes of a channel: what batch norm and scale-shift are made of.
//!
//! A channel of images (n, c, h, w) is n planes of h w pixels, apart in memory. A task takes a whole channel, so sums are
//! formed in the same order by any number of threads, and the second pass finds the channel in the cache.

use crate::cpu::{number::Float, simd::simd, vector::LANES};
use candle_core::Shape;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The sizes of images as a channel sees them.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub channels: usize,
    pub pixels: usize,
}

impl Channels {
    /// The sizes of images (n, c, h, w).
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

    /// `y = (x - center) scale + shift + residual`, rectified if `relu`.
    pub fn apply_and_add(self, relu: bool, x: &[T], residual: &[T], y: &mut [MaybeUninit<T>]) {
        match relu {
            true => apply_and_add::<T, true>(self, x, residual, y),
            false => apply_and_add::<T, false>(self, x, residual, y),
        }
    }

    /// `dx = scale (g - mean - slope (x - center))`, where g is `dy`, or 0 where the rectified `y` is if `relu`.
    pub fn centered_gradient(self, relu: bool, [mean, slope]: [T; 2], x: &[T], y: &[T], dy: &[T], dx: &mut [T]) {
        match relu {
            true => centered_gradient::<T, true>(self, [mean, slope], x, y, dy, dx),
            false => centered_gradient::<T, false>(self, [mean, slope], x, y, dy, dx),
        }
    }

    /// The gradient that passes the rectifier. PyTorch's convention: none at 0, and NaN does not stop it.
    #[inline(always)]
    fn through<const RELU: bool>(self, x: T, dy: T) -> T {
        if RELU && (x - self.center) * self.scale + self.shift <= T::zero() { T::zero() } else { dy }
    }
}

/// The first two moments of numbers: how many, their mean, and the sum of the squared distances from it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moments {
    count: f64,
    pub mean: f64,
    squares: f64,
}

impl Moments {
    /// The moments of a plane. They are summed in f64, as distances from the first pixel, so that a mean far from 0 does not cancel the
    /// variance.
    pub fn of<T: Float>(plane: &[T]) -> Self {
        let Some(first) = plane.first().map(|first| first.wide()) else { return Self::default() };
        let mut sums = [[0.0; LANES]; 2];
        add_moments(first, plane, &mut sums);
        let [sum, squares] = sums.map(|lanes| lanes.iter().sum::<f64>());
        let count = plane.len() as f64;
        Self { count, mean: first + sum / count, squares: squares - sum * (sum / count) }
    }

    /// The moments of both together (Chan, Golub & LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample
    /// variances).
    pub fn and(self, other: Self) -> Self {
        let (count, distance) = (self.count + other.count, other.mean - self.mean);
        let share = other.count / count;
        Self {
            count,
            mean: self.mean + distance * share,
            squares: self.squares + other.squares + distance * distance * self.count * share,
        }
    }

    /// The biased variance.
    pub fn variance(&self) -> f64 {
        (self.squares / self.count).rectified()
    }
}

simd! {
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

    fn apply<T: Float, const RELU: bool>(affine: Affine<T>, x: &[T], y: &mut [MaybeUninit<T>]) {
        let Affine { center, scale, shift } = affine;
        for (y, &x) in y.iter_mut().zip(x) {
            let value = (x - center) * scale + shift;
            y.write(if RELU { value.rectified() } else { value });
        }
    }

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

    fn apply_and_add<T: Float, const RELU: bool>(affine: Affine<T>, x: &[T], residual: &[T], y: &mut [MaybeUninit<T>]) {
        let Affine { center, scale, shift } = affine;
        for ((y, &x), &residual) in y.iter_mut().zip(x).zip(residual) {
            let value = (x - center) * scale + shift + residual;
            y.write(if RELU { value.rectified() } else { value });
        }
    }
}

/// `dy`, and 0 where the rectified `y` is.
#[inline(always)]
fn through<T: Float, const RELU: bool>(y: T, dy: T) -> T {
    if RELU && y <= T::zero() { T::zero() } else { dy }
}

/// The sums of `g` and of `g (x - center)`, where g is `dy`, or 0 where the rectified `y` is if `relu`.
pub(crate) fn masked_sums<T: Float>(relu: bool, center: T, x: &[T], y: &[T], dy: &[T]) -> [f64; 2] {
    match relu {
        true => add_masked_sums::<T, true>(center, x, y, dy),
        false => add_masked_sums::<T, false>(center, x, y, dy),
    }
}

/// `passed = g`, as in [`masked_sums`].
pub(crate) fn masked<T: Float>(relu: bool, y: &[T], dy: &[T], passed: &mut [MaybeUninit<T>]) {
    match relu {
        true => pass::<T, true>(y, dy, passed),
        false => pass::<T, false>(y, dy, passed),
    }
}

simd! {
    /// `y += bias`, and 0 where that is negative if `relu`; NaN stays NaN.
    pub(crate) fn add_bias<T: Float>(relu: bool, bias: T, y: &mut [T]) {
        for y in y {
            let sum = *y + bias;
            *y = if relu { sum.rectified() } else { sum };
        }
    }
}

/// `passed = g`, as in [`masked_sums`], and its sum.
pub(crate) fn masked_sum<T: Float>(relu: bool, y: &[T], dy: &[T], passed: &mut [T]) -> f64 {
    match relu {
        true => pass_and_sum::<T, true>(y, dy, passed),
        false => pass_and_sum::<T, false>(y, dy, passed),
    }
}

simd! {
    fn pass_and_sum<T: Float, const RELU: bool>(y: &[T], dy: &[T], passed: &mut [T]) -> f64 {
        let mut sums = [0.0; LANES];
        let mut take = |lane: usize, y: T, dy: T, passed: &mut T| {
            *passed = through::<T, RELU>(y, dy);
            sums[lane] += passed.wide();
        };
        let (ys, dys, mut places) = (y.chunks_exact(LANES), dy.chunks_exact(LANES), passed.chunks_exact_mut(LANES));
        let rest = ys.remainder().iter().zip(dys.remainder());
        for ((y, dy), passed) in ys.zip(dys).zip(&mut places) {
            for lane in 0..LANES {
                take(lane, y[lane], dy[lane], &mut passed[lane]);
            }
        }
        for (lane, ((&y, &dy), passed)) in rest.zip(places.into_remainder()).enumerate() {
            take(lane, y, dy, passed);
        }
        sums.iter().sum()
    }

    fn add_masked_sums<T: Float, const RELU: bool>(center: T, x: &[T], y: &[T], dy: &[T]) -> [f64; 2] {
        let (mut sum, mut product) = ([0.0; LANES], [0.0; LANES]);
        let mut add = |lane: usize, x: T, y: T, dy: T| {
            let g = through::<T, RELU>(y, dy).wide();
            sum[lane] += g;
            product[lane] += g * (x - center).wide();
        };
        let (xs, ys, dys) = (x.chunks_exact(LANES), y.chunks_exact(LANES), dy.chunks_exact(LANES));
        let rest = xs.remainder().iter().zip(ys.remainder()).zip(dys.remainder());
        rest.enumerate().for_each(|(lane, ((&x, &y), &dy))| add(lane, x, y, dy));
        for ((x, y), dy) in xs.zip(ys).zip(dys) {
            for lane in 0..LANES {
                add(lane, x[lane], y[lane], dy[lane]);
            }
        }
        [sum.iter().sum(), product.iter().sum()]
    }

    fn pass<T: Float, const RELU: bool>(y: &[T], dy: &[T], passed: &mut [MaybeUninit<T>]) {
        for ((passed, &y), &dy) in passed.iter_mut().zip(y).zip(dy) {
            passed.write(through::<T, RELU>(y, dy));
        }
    }

    fn centered_gradient<T: Float, const RELU: bool>(
        affine: Affine<T>,
        [mean, slope]: [T; 2],
        x: &[T],
        y: &[T],
        dy: &[T],
        dx: &mut [T],
    ) {
        for (((dx, &x), &y), &dy) in dx.iter_mut().zip(x).zip(y).zip(dy) {
            let g = through::<T, RELU>(y, dy);
            *dx = affine.scale * (g - mean - (x - affine.center) * slope);
        }
    }
}
