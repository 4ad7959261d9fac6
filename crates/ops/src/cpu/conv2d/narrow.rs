//! The direct convolution of small images, in vectors of channels: short rows would leave vectors of pixels half empty, and all weights be
//! read anew for the few pixels of an image.
//!
//! A tile of [`Outer`] here has some pixels and one or two vectors of channels. Each element of a window adds the number that each
//! pixel reads of it, times the channels' weights of it. Several images are taken at a time, so that the weights are read
//! from afar once for all of them. Else it is as [`super::direct`] says, in frames whose columns are not sorted.

use super::{
    frame::{Frame, windows},
    tile::{Outer, instructions, lanes, outer_vectors},
};
use crate::{
    cpu::{tensor::written, transpose::Transpose},
    shape::conv2d::Geometry,
};
use pulp::Arch;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Channels that are worth it, at least.
const MIN_CHANNELS: usize = 16;
/// Pixels that are taken at a time, at least.
const MIN_PIXELS_AT_A_TIME: usize = 128;
/// More than the second-level cache holds beside the pixels.
const MIN_WEIGHTS_OF_SMALL_IMAGES: usize = 1 << 17;
/// Multiplications that are worth a task within a task.
const MULTIPLICATIONS_PER_TASK: usize = 1 << 21;

/// Whether rows of so many pixels leave two fifths of their vectors empty, or images have too few for so many weights; and the
/// channels fill vectors.
pub(super) fn suits(g: &Geometry, [rows, columns]: [usize; 2], channels: usize) -> bool {
    let padded = columns.next_multiple_of(lanes(instructions(columns)));
    let is_short = 5 * columns <= 3 * padded;
    let is_small = rows * columns < MIN_PIXELS_AT_A_TIME && g.weight_size() >= MIN_WEIGHTS_OF_SMALL_IMAGES;
    g.groups == 1 && channels >= MIN_CHANNELS && (is_short || is_small)
}

/// How many images of so many pixels are taken at a time.
pub(super) fn images_at_a_time(pixels: usize) -> usize {
    MIN_PIXELS_AT_A_TIME.div_ceil(pixels.max(1))
}

/// `out[channel][p] = sum over k of weight[channel][k] x[offset[k] + pixel[p]]` for the pixels of some images.
pub(super) struct Products {
    arch: Arch,
    channels: usize,
    /// Vectors and channels of a tile.
    vectors: usize,
    tile: usize,
    /// One for each k.
    offsets: Vec<usize>,
    /// One for each p, in the frame of one image.
    pixels: Vec<usize>,
    /// `[tile][k][channel of the tile]`
    weights: Vec<f32>,
}

impl Products {
    /// `weight(channel, k)`
    pub(super) fn new(
        channels: usize,
        offsets: Vec<usize>,
        pixels: Vec<usize>,
        weight: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Self {
        let arch = instructions(channels);
        let vectors = outer_vectors(channels, lanes(arch));
        let (tile, window) = (vectors * lanes(arch), offsets.len());
        let mut weights = vec![0.0; channels.next_multiple_of(tile) * window];
        weights.par_chunks_exact_mut((tile * window).max(1)).enumerate().for_each(|(of_tile, weights)| {
            let of_tile = of_tile * tile..channels.min((of_tile + 1) * tile);
            for (k, weights) in weights.chunks_exact_mut(tile).enumerate() {
                of_tile.clone().zip(weights).for_each(|(channel, to)| *to = weight(channel, k));
            }
        });
        Self { arch, channels, vectors, tile, offsets, pixels, weights }
    }

    /// The products of `images` images whose frames, of this length, lie one after another: `[tile][image][p][channel of the tile]`.
    pub(super) fn run(&self, frames: &[f32], frame: usize, images: usize, out: &mut Vec<f32>) {
        let starts = (0..images).flat_map(|image| self.pixels.iter().map(move |pixel| image * frame + pixel));
        let pixels: Vec<usize> = starts.collect();
        let (of_tile, window) = (pixels.len() * self.tile, self.offsets.len());
        out.clear();
        out.resize(self.weights.len() / window.max(1) * pixels.len(), 0.0);
        let tiles = out.par_chunks_mut(of_tile.max(1)).zip(self.weights.par_chunks((self.tile * window).max(1)));
        tiles.with_min_len(MULTIPLICATIONS_PER_TASK.div_ceil(of_tile * window + 1)).for_each(|(sums, y)| {
            // Pixels and elements have each other's part in the gradient by the weight.
            let (offsets, pixels) = (&pixels, &self.offsets);
            self.arch.dispatch(Outer { vectors: self.vectors, x: frames, offsets, pixels, y, sums });
        });
    }

    /// Writes all pixels of the `at`-th of `images` images to `image`, the channels' planes.
    pub(super) fn write_image<'a>(
        &self,
        at: usize,
        images: usize,
        out: &[f32],
        image: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let (pixels, tile) = (self.pixels.len(), self.tile);
        assert_eq!(image.len(), self.channels * pixels);
        for (planes, out) in image.chunks_mut(tile * pixels).zip(out.chunks_exact(images * pixels * tile)) {
            let (columns, out) = (planes.len() / pixels, &out[at * pixels * tile..][..pixels * tile]);
            Transpose { count: 1, rows: pixels, columns, from: [tile, 0], to: [pixels, 0] }.run(out, planes);
        }
        // SAFETY: each channel's pixels were just written.
        unsafe { written(image) }
    }

    /// Writes the pixels of the `at`-th of `images` images to their `places` in the channels' planes.
    pub(super) fn scatter(
        &self,
        at: usize,
        images: usize,
        out: &[f32],
        places: &[usize],
        plane: usize,
        image: &mut [MaybeUninit<f32>],
    ) {
        let (pixels, tile) = (self.pixels.len(), self.tile);
        for (planes, out) in image.chunks_mut(tile * plane).zip(out.chunks_exact(images * pixels * tile)) {
            let out = &out[at * pixels * tile..][..pixels * tile];
            for (channel, plane) in planes.chunks_exact_mut(plane).enumerate() {
                for (&place, &value) in places.iter().zip(out[channel..].iter().step_by(tile)) {
                    plane[place].write(value);
                }
            }
        }
    }
}

/// See [`super::direct::forward`].
pub(super) fn forward<R: Send>(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    seen: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    let frame = Frame::of_input(g, 1, 0);
    let pixels = (0..g.out_height).flat_map(|i| (0..g.out_width).map(move |j| (i * g.stride, j * g.stride)));
    let pixels = pixels.map(|(row, column)| frame.at(0, row, column)).collect();
    let weight = |channel, k| weight[channel * g.window() + k];
    let products = Products::new(g.out_channels, windows(g, &frame), pixels, weight);
    let at_a_time = images_at_a_time(g.out_pixels());
    let mut y = Box::new_uninit_slice(g.images * g.out_size());
    let tasks = y.par_chunks_mut(at_a_time * g.out_size()).zip(x.par_chunks(at_a_time * g.in_size())).enumerate();
    let results = tasks.map_init(
        || (vec![0.0; at_a_time * frame.len()], Vec::new()),
        |(frames, out), (task, (y, x))| {
            let images = x.len() / g.in_size();
            for (x, framed) in x.chunks_exact(g.in_size()).zip(frames.chunks_exact_mut(frame.len())) {
                frame.fill(x, framed);
            }
            products.run(frames, frame.len(), images, out);
            let write = |(at, y)| seen(task * at_a_time + at, products.write_image(at, images, out, y));
            y.chunks_exact_mut(g.out_size()).enumerate().map(write).collect::<Vec<R>>()
        },
    );
    let results = results.collect::<Vec<_>>().into_iter().flatten().collect();
    // SAFETY: every image of every task was written.
    (unsafe { y.assume_init() }.into_vec(), results)
}
