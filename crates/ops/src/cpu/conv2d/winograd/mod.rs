//! Convolution of 3x3 and stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016, arXiv:1509.09308).
//!
//! A tile of 2x2 output pixels reads 4x4 pixels `d`. With the kernel `g` and the matrices `A`, `B` and `G` below it is
//!
//! ```text
//! A^T ((G g G^T) * (B^T d B)) A        *: element by element
//! ```
//!
//! with 16 products instead of 36. Summed over channels, each of the 16 elements is a matrix product: transformed tiles (tiles, in
//! channels) times transformed kernels (in channels, out channels). The gradient by the weight is what this makes of the tiles' own
//! gradients `e`, summed over all tiles:
//!
//! ```text
//! G^T (sum of (A e A^T) * (B^T d B)) G
//! ```
//!
//! The transforms cost a few additions per pixel and channel, which many channels make up for: see [`suits`]. They go in vectors of
//! channels, so images are transposed on the way in and out.
//!
//! Rounding errors are a few times those of the direct sum. What is infinite or NaN spreads to the other pixels of its tile.

mod filter;
mod kernels;
mod tiling;
mod transform;
mod weight_gradient;

use self::{
    filter::Filter,
    kernels::kernels_back,
    tiling::tiles_of_input,
    transform::{ELEMENTS, Matrices},
    weight_gradient::WeightGradient,
};
use super::gradient::{Gradients, OutputGradient, Wanted, gradients_by_parts};
use crate::{
    cpu::tensor::{vec_written, written},
    shape::conv2d::Geometry,
};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// This method is taken from so many channels on, on both sides. On a processor with AVX2 the three passes of a convolution of 64
/// channels take 0.88 of the direct method's time by it, those of 32 channels 1.06 and those of 16 channels 1.4 (benches/RESULTS.md).
const MIN_CHANNELS: usize = 48;
/// Tiles whose gradient by the weight a part sums, at least: as many as make up for adding the parts up.
const MIN_TILES_PER_PART: usize = 256;

/// Whether this method is both possible and quicker than the direct one.
pub(super) fn suits(g: &Geometry) -> bool {
    (g.kernel_height, g.kernel_width, g.stride, g.dilation, g.groups) == (3, 3, 1, 1, 1)
        && g.padding <= 2
        && g.in_channels.min(g.out_channels) >= MIN_CHANNELS
}

/// The convolution, where the method [suits]; see [`Convolve::forward`](super::Convolve::forward).
pub(super) fn forward<R: Send>(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    seen: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    let method = Filter::forward(g, weight);
    let at_a_time = method.input.at_a_time(g.images.max(1));
    let mut results = Vec::new();
    let write = |y: &mut [MaybeUninit<f32>]| {
        let tasks = y.par_chunks_mut(at_a_time * g.out_size()).zip(x.par_chunks(at_a_time * g.in_size())).enumerate();
        let tasks = tasks.map_init(
            || method.scratch(at_a_time),
            |(tiles, products), (task, (y, x))| {
                let (images, input) = (x.len() / g.in_size(), &method.input);
                let all = tiles.par_chunks_mut(input.image_len()).zip(x.par_chunks(g.in_size()));
                all.with_min_len(input.images_of_task()).for_each_init(
                    || input.pixels(),
                    |pixels, (tiles, x)| input.take(Matrices::Input, x, pixels, tiles),
                );
                method.multiply(images, tiles, products);
                let write = |output: &mut Vec<f32>, (at, y): (usize, &mut [MaybeUninit<f32>])| {
                    method.write(at, images, y, products, output);
                    // SAFETY: all pixels were just written.
                    seen(task * at_a_time + at, unsafe { written(y) })
                };
                let all = y.par_chunks_mut(g.out_size()).enumerate().with_min_len(input.images_of_task());
                all.map_init(|| method.output(), write).collect::<Vec<R>>()
            },
        );
        results = tasks.collect::<Vec<_>>();
    };
    // SAFETY: the tasks are all images, and each writes all of each.
    let y = unsafe { vec_written(g.images * g.out_size(), write) };
    (y, results.into_iter().flatten().collect())
}

/// The gradients, where the method [suits].
pub(super) fn backward(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    dy: &OutputGradient<f32>,
    wanted: Wanted,
) -> Gradients<f32> {
    let by_input = wanted.input.then(|| Filter::input_gradient(g, weight));
    let by_weight = wanted.weight.then(|| WeightGradient::new(g));
    let tiling = tiles_of_input(g);
    let per_part = g.images_per_part().max(MIN_TILES_PER_PART.div_ceil(tiling.tiles()));
    let at_a_time = tiling.at_a_time(per_part);
    let sums_len = ELEMENTS * g.weight_size() / 9;
    let gradients = gradients_by_parts(g, wanted, per_part, sums_len, |images, dx| {
        let mut input_scratch = by_input.as_ref().map(|by_input| by_input.scratch(at_a_time)).unwrap_or_default();
        let mut weight_scratch = by_weight.as_ref().map(|by_weight| by_weight.scratch(at_a_time)).unwrap_or_default();
        let mut sums = by_weight.as_ref().map(|_| Vec::new());
        let mut dx = dx;
        for start in images.clone().step_by(at_a_time) {
            let some = start..images.end.min(start + at_a_time);
            let (tiles, products) = &mut input_scratch;
            let [x_tiles, dy_tiles] = &mut weight_scratch;
            let mut tiles_of_images =
                tiles.chunks_mut(by_input.as_ref().map_or(1, |by_input| by_input.input.image_len()));
            let mut x_tiles_of_images = x_tiles.chunks_mut(tiling.image_len());
            let mut dy_tiles_of_images =
                dy_tiles.chunks_mut(by_weight.as_ref().map_or(1, |by_weight| by_weight.output.image_len()));
            let mut rooms: Vec<_> = (some.clone())
                .map(|image| {
                    let [a, b, c] = [&mut tiles_of_images, &mut x_tiles_of_images, &mut dy_tiles_of_images];
                    (image, [a, b, c].map(|chunks| chunks.next().unwrap_or_default()))
                })
                .collect();
            rooms.par_iter_mut().with_min_len(tiling.images_of_task()).for_each_init(
                || {
                    let pixels = by_input.as_ref().map(|by_input| by_input.input.pixels());
                    let pixels_of_both =
                        by_weight.as_ref().map(|by_weight| by_weight.sides().map(|side| side.pixels()));
                    (dy.buffer(g), pixels, pixels_of_both)
                },
                |(buffer, pixels, pixels_of_both), (image, [tiles, x_tiles, dy_tiles])| {
                    let dy = dy.section(g, *image, buffer);
                    if let (Some(by_input), Some(pixels)) = (&by_input, pixels) {
                        by_input.input.take(Matrices::Input, dy, pixels, tiles);
                    }
                    if let (Some(by_weight), Some([x_pixels, dy_pixels])) = (&by_weight, pixels_of_both) {
                        let x = &x[*image * g.in_size()..][..g.in_size()];
                        by_weight.input.take(Matrices::Input, x, x_pixels, x_tiles);
                        by_weight.output.take(Matrices::OutputGradient, dy, dy_pixels, dy_tiles);
                    }
                },
            );
            if let Some(by_input) = &by_input {
                by_input.multiply(some.len(), tiles, products);
                let (some_dx, rest) = std::mem::take(&mut dx).split_at_mut(some.len() * g.in_size());
                dx = rest;
                let all = some_dx.par_chunks_mut(g.in_size()).enumerate().with_min_len(tiling.images_of_task());
                all.for_each_init(
                    || by_input.output(),
                    |output, (at, dx)| by_input.write(at, some.len(), dx, products, output),
                );
            }
            if let (Some(by_weight), Some(sums)) = (&by_weight, &mut sums) {
                by_weight.add(some.len(), &weight_scratch, sums);
            }
        }
        sums
    });
    let weight = gradients.weight.map(|sums| kernels_back(&sums, g.in_channels));
    Gradients { weight, ..gradients }
}
