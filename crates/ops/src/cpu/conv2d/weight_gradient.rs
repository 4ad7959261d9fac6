//! The gradient of a convolution by its weight: for each channel `o` of dy and each element `k` of a window the sum over the pixels
//! of all images
//!
//! ```text
//! sums[o][k] = sum over p of dy[o][p] x[offset[k] + pixel[p]]
//! ```
//!
//! with the tables of [`super::direct`]. By many channels it goes in vectors of channels: dy is transposed, to `[p][channels of a
//! tile]`, and [`Outer`] adds up a tile of sums in registers. So no sum is across a vector, and rows of any length are without
//! waste. By a channel or two, as in a depthwise convolution, [`Correlations`] goes in vectors of pixels.

use super::{
    frame::{Frame, Grid, windows},
    tile::{Correlations, MAX_SINGLE_CHANNELS, Outer, instructions, lanes, outer_vectors},
};
use crate::{cpu::transpose::Transpose, shape::conv2d::Geometry};
use pulp::Arch;
use rayon::prelude::*;

/// Pixels that a tile of sums takes before it is written back.
const MIN_PIXELS_AT_A_TIME: usize = 256;
/// Multiplications that are worth a task within a task, which a thread takes that has nothing else to do.
const MULTIPLICATIONS_PER_TASK: usize = 1 << 21;

/// The gradient by the weight, some sections of a group at a time.
pub(super) struct WeightGradient<'a> {
    g: &'a Geometry,
    arch: Arch,
    frame: Frame,
    offsets: Vec<usize>,
    pub at_a_time: usize,
    /// Where the windows of the pixels, or of vectors of pixels, start in the frames of all sections that are taken at a time.
    pixels: Vec<usize>,
    method: Method,
}

enum Method {
    /// Vectors of the pixels of this grid.
    Pixels(Grid),
    /// Vectors of channels.
    Channels {
        /// Vectors of a tile.
        vectors: usize,
        /// Channels of a tile.
        tile: usize,
    },
}

/// The frames of x, and dy as the method reads it.
pub(super) type Scratch = (Vec<f32>, Vec<f32>);

impl<'a> WeightGradient<'a> {
    /// It takes at least so many images at a time if a part has them, and no more than it has.
    pub fn new(g: &'a Geometry, least: usize, per_part: usize) -> Self {
        let enough = |padded_pixels: usize| (MIN_PIXELS_AT_A_TIME / padded_pixels.max(1)).max(least).clamp(1, per_part);
        if g.out_channels <= MAX_SINGLE_CHANNELS {
            let arch = instructions(g.out_width);
            let frame = Frame::of_input(g, g.stride, lanes(arch));
            let grid = Grid::of_output(g, &frame, lanes(arch));
            let at_a_time = enough(grid.padded_pixels());
            let pixels = several(at_a_time, &frame, &grid.pixels);
            let offsets = windows(g, &frame);
            return Self { g, arch, frame, offsets, at_a_time, pixels, method: Method::Pixels(grid) };
        }
        let arch = instructions(g.out_channels);
        let frame = Frame::of_input(g, 1, 0);
        let rows = 0..g.out_height;
        let pixels = rows.flat_map(|i| (0..g.out_width).map(move |j| (i, j)));
        let pixels: Vec<usize> = pixels.map(|(i, j)| frame.at(0, i * g.stride, j * g.stride)).collect();
        let at_a_time = enough(g.out_pixels());
        let pixels = several(at_a_time, &frame, &pixels);
        let offsets = windows(g, &frame);
        let vectors = outer_vectors(g.out_channels, lanes(arch));
        let method = Method::Channels { vectors, tile: vectors * lanes(arch) };
        Self { g, arch, frame, offsets, at_a_time, pixels, method }
    }

    /// Channels, with those that fill up tiles.
    fn channels(&self) -> usize {
        match self.method {
            Method::Pixels(_) => self.g.out_channels,
            Method::Channels { tile, .. } => self.g.out_channels.next_multiple_of(tile),
        }
    }

    fn padded_pixels(&self) -> usize {
        match &self.method {
            Method::Pixels(grid) => grid.padded_pixels(),
            Method::Channels { .. } => self.g.out_pixels(),
        }
    }

    pub fn scratch(&self) -> Scratch {
        let frames = vec![0.0; self.at_a_time * self.frame.len()];
        (frames, vec![0.0; self.channels() * self.at_a_time * self.padded_pixels()])
    }

    /// Numbers of which the gradient is made.
    pub fn sums_len(&self) -> usize {
        self.g.groups * self.channels() * self.g.window()
    }

    /// Takes the `at`-th section of `count`.
    pub fn take(&self, x: &[f32], dy: &[f32], at: usize, count: usize, (frames, gradient): &mut Scratch) {
        self.frame.fill(x, &mut frames[at * self.frame.len()..][..self.frame.len()]);
        let pixels = self.padded_pixels();
        match &self.method {
            Method::Pixels(grid) => {
                for (dy, row) in dy.chunks_exact(self.g.out_pixels()).zip(gradient.chunks_exact_mut(count * pixels)) {
                    grid.read(dy, self.g.out_width, &mut row[at * pixels..][..pixels]);
                }
            }
            &Method::Channels { tile, .. } => {
                for (dy, to) in dy.chunks(tile * pixels).zip(gradient.chunks_exact_mut(tile * count * pixels)) {
                    // What fills up the last tile stays zero.
                    let (rows, to) = (dy.len() / pixels, &mut to[at * tile * pixels..][..tile * pixels]);
                    let (from, columns) = ([pixels, 0], pixels);
                    Transpose { count: 1, rows, columns, from, to: [tile, 0] }.run(dy, to);
                }
            }
        }
    }

    /// Adds the gradient of the `count` sections of this group that were taken.
    pub fn add(&self, group: usize, count: usize, (frames, gradient): &Scratch, sums: &mut [f32]) {
        let size = self.channels() * self.g.window();
        let sums = &mut sums[group * size..][..size];
        let y = &gradient[..self.channels() * count * self.padded_pixels()];
        let pixels = &self.pixels[..self.pixels.len() / self.at_a_time * count];
        let (x, offsets) = (frames, &self.offsets);
        match self.method {
            Method::Pixels(_) => self.arch.dispatch(Correlations { x, offsets, pixels, y, sums }),
            Method::Channels { vectors, tile } => {
                let (window, pixels_of_tile) = (tile * offsets.len(), tile * pixels.len());
                let tiles = sums.par_chunks_exact_mut(window).zip(y.par_chunks_exact(pixels_of_tile));
                let enough = MULTIPLICATIONS_PER_TASK.div_ceil(window * pixels.len());
                tiles.with_min_len(enough).for_each(|(sums, y)| {
                    self.arch.dispatch(Outer { vectors, x, offsets, pixels, y, sums });
                });
            }
        }
    }

    /// Sums in the order of the weight.
    pub fn ordered(&self, sums: Vec<f32>) -> Vec<f32> {
        let Method::Channels { tile, .. } = self.method else { return sums };
        let (window, channels) = (self.g.window(), self.g.out_channels);
        let mut weight = vec![0.0; self.g.weight_size()];
        let groups = weight.chunks_exact_mut(channels * window).zip(sums.chunks_exact(self.channels() * window));
        for (weight, sums) in groups {
            // Channel after channel of a tile, which then is in the cache.
            for (weight, sums) in weight.chunks_mut(tile * window).zip(sums.chunks_exact(tile * window)) {
                for (channel, weight) in weight.chunks_exact_mut(window).enumerate() {
                    weight.iter_mut().zip(sums[channel..].iter().step_by(tile)).for_each(|(to, from)| *to = *from);
                }
            }
        }
        weight
    }
}

/// `pixels` in the frames of several sections.
fn several(sections: usize, frame: &Frame, pixels: &[usize]) -> Vec<usize> {
    let starts = (0..sections).map(|section| section * frame.len());
    starts.flat_map(|start| pixels.iter().map(move |pixel| start + pixel)).collect()
}
