//! Direct convolution of f32 images, without a matrix of windows.
//!
//! # Layout
//!
//! Each section (an image's channels of one group: see [`Geometry`]) is copied into a [`Frame`] of zeros, so that no window needs a
//! test for the border. In a frame the element
//! `(channel, row, column)` of a window that starts at a pixel lies at
//!
//! ```text
//! pixel + offset        pixel: where the window starts      offset: of the element in any window
//! ```
//!
//! and the windows of neighbouring output pixels start at neighbouring places. So a vector of output pixels is the sum over
//! the elements of a window of one weight times one vector of the frame: [`Products`] over a table of pixels (every
//! vector of every output row) and a table of offsets (every element of a window, in the order of the weight).
//!
//! With a stride, neighbouring windows read every `stride`-th column. A frame therefore stores the columns of a row sorted
//! by their remainder: for stride 2, columns 0 2 4 .. and then 1 3 5 .. .
//!
//! A row whose length is no multiple of the vector ends in a vector with too many pixels: those read whatever comes next in
//! the frame, and are dropped ([`Grid::write`]), or meet zeros in the other factor
//! ([`super::weight_gradient`]).
//!
//! # The three passes
//!
//! - Forward: products over the frame of x.
//! - Gradient by the input: the input pixels `(i, j)` with the same remainders of `i + padding` and `j + padding` by the
//!   stride read the same taps of the kernel: tap `a`, `a dilation` from a window's start, where `i + padding` and `a dilation`
//!   have the same remainder. For each such phase, products over the frame of dy with those taps, turned around. With stride 1
//!   there is one phase: the convolution of dy with the flipped kernel.
//! - Gradient by the weight: see [`super::weight_gradient`].
//!
//! Where rows are too short for vectors of pixels, products go in vectors of channels: see [`super::narrow`].

use super::{
    frame::{Frame, Grid, windows},
    gradient::{Gradients, OutputGradient, Wanted, gradients_by_parts},
    narrow,
    tile::{Products, blocks, instructions, lanes},
    weight_gradient::WeightGradient,
};
use crate::{cpu::tensor::written, shape::conv2d::Geometry};
use pulp::Arch;
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// Pixels whose gradient by the weight a part sums, at least: as many as make up for adding the parts up.
const MIN_PIXELS_PER_PART: usize = 128;
/// Weights that are worth a task.
const WEIGHTS_PER_TASK: usize = 1 << 14;

pub(super) fn forward<R: Send>(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    seen: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    if narrow::suits(g, [g.out_height, g.out_width], g.out_channels) {
        return narrow::forward(g, x, weight, seen);
    }
    let mut y = Box::new_uninit_slice(g.sections() * g.out_size());
    let arch = instructions(g.out_width);
    let frame = Frame::of_input(g, g.stride, lanes(arch));
    let offsets = windows(g, &frame);
    let grid = Grid::of_output(g, &frame, lanes(arch));
    let blocks = blocks(g.out_channels);
    let pack =
        |weight: &[f32]| pack(&blocks, g.out_channels, g.window(), |channel, k| weight[channel * g.window() + k]);
    let weights: Vec<Vec<f32>> = g.group_weights(weight).map(pack).collect();
    let channels: usize = blocks.iter().sum();
    let sections = y.par_chunks_mut(g.out_size()).zip(x.par_chunks(g.in_size())).enumerate();
    let results = sections.map_init(
        || (vec![0.0; frame.len()], Box::new_uninit_slice(channels * grid.padded_pixels())),
        |(framed, buffer), (section, (y, x))| {
            let weight = &weights[section % g.groups];
            frame.fill(x, framed);
            let products = |out: &mut [MaybeUninit<f32>]| {
                let (offsets, pixels, blocks) = (&offsets, &grid.pixels, &blocks);
                arch.dispatch(Products { x: framed, offsets, pixels, blocks, weight, out });
            };
            if grid.is_whole(g.out_width) && channels == g.out_channels {
                products(y);
            } else {
                products(buffer);
                grid.write(buffer, y, g.out_height, g.out_width);
            }
            // SAFETY: the grid has all pixels of a section, and the products or what is written from them are of all channels.
            seen(section, unsafe { written(y) })
        },
    );
    let results = results.collect();
    // SAFETY: every section was written, as above.
    (unsafe { y.assume_init() }.into_vec(), results)
}

pub(super) fn backward(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    dy: &OutputGradient<f32>,
    wanted: Wanted,
) -> Gradients<f32> {
    let per_part = g.images_per_part().max(MIN_PIXELS_PER_PART.div_ceil(g.out_pixels()));
    let by_input = wanted.input.then(|| InputGradient::new(g, weight));
    let least = by_input.as_ref().map_or(1, InputGradient::at_a_time);
    let by_weight = wanted.weight.then(|| WeightGradient::new(g, least, per_part));
    let at_a_time = by_weight.as_ref().map_or(least.min(per_part), |by_weight| by_weight.at_a_time);
    let sums_len = by_weight.as_ref().map_or(0, WeightGradient::sums_len);
    let gradients = gradients_by_parts(g, wanted, per_part, sums_len, |images, dx| {
        let mut dy_buffer = dy.buffer(g);
        let mut input_scratch = by_input.as_ref().map(|by_input| by_input.scratch(at_a_time));
        let mut sums = by_weight.as_ref().map(|by_weight| (by_weight.scratch(), vec![0.0; by_weight.sums_len()]));
        for group in 0..g.groups {
            for start in images.clone().step_by(at_a_time) {
                let some = start..images.end.min(start + at_a_time);
                for (at, image) in some.clone().enumerate() {
                    let section = image * g.groups + group;
                    let dy = dy.section(g, section, &mut dy_buffer);
                    if let (Some(by_input), Some(scratch)) = (&by_input, &mut input_scratch) {
                        let place = (section - images.start * g.groups) * g.in_size();
                        by_input.take(group, dy, at, &mut dx[place..][..g.in_size()], scratch);
                    }
                    if let (Some(by_weight), Some((scratch, _))) = (&by_weight, &mut sums) {
                        by_weight.take(&x[section * g.in_size()..][..g.in_size()], dy, at, some.len(), scratch);
                    }
                }
                if let (Some(by_input), Some(scratch)) = (&by_input, &mut input_scratch) {
                    let place = (start - images.start) * g.in_size();
                    by_input.finish(some.len(), &mut dx[place..], scratch);
                }
                if let (Some(by_weight), Some((scratch, sums))) = (&by_weight, &mut sums) {
                    by_weight.add(group, some.len(), scratch, sums);
                }
            }
        }
        sums.map(|(_, sums)| sums)
    });
    let weight = gradients.weight.zip(by_weight).map(|(sums, by_weight)| by_weight.ordered(sums));
    Gradients { weight, ..gradients }
}

/// The gradient by the input.
struct InputGradient<'a> {
    g: &'a Geometry,
    frame: Frame,
    phases: Phases,
    every_pixel_is_read: bool,
}

enum Phases {
    /// Products of vectors of pixels, one section after the other.
    Pixels { arch: Arch, blocks: Vec<usize>, phases: Vec<PixelPhase> },
    /// Products of vectors of channels, some images at a time, and for each phase the places of its pixels in a plane.
    Narrow(Vec<(narrow::Products, Vec<usize>)>),
}

/// Framed sections of dy, and products of vectors of pixels and of channels, before they are written to their pixels.
type InputScratch = (Vec<f32>, Box<[MaybeUninit<f32>]>, Vec<f32>);

impl<'a> InputGradient<'a> {
    fn new(g: &'a Geometry, weight: &[f32]) -> Self {
        let pixels = [g.height.div_ceil(g.stride), g.width.div_ceil(g.stride)];
        let is_narrow = narrow::suits(g, pixels, g.in_channels);
        let arch = instructions(pixels[1]);
        let frame = Frame::of_output_gradient(g, if is_narrow { 0 } else { lanes(arch) });
        let phases = phases(g, &frame);
        let every_pixel_is_read = phases.len() == g.stride.min(g.height) * g.stride.min(g.width);
        let weight_of = |weight: &[f32], elements: &[(usize, usize)], channel: usize, k: usize| {
            let (o, tap) = elements[k];
            weight[(o * g.in_channels + channel) * g.kernel_height * g.kernel_width + tap]
        };
        let phases = if is_narrow {
            let products = |Phase { rows, columns, offsets, elements }: Phase| {
                let grid = |range: &Range<usize>| range.clone().step_by(g.stride).enumerate().collect::<Vec<_>>();
                let (rows, columns) = (grid(&rows), grid(&columns));
                let pixels = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
                let places = pixels.clone().map(|(row, column)| row.1 * g.width + column.1).collect();
                let pixels = pixels.map(|(row, column)| frame.at(0, row.0, column.0)).collect();
                let weight = |channel, k| weight_of(weight, &elements, channel, k);
                (narrow::Products::new(g.in_channels, offsets, pixels, weight), places)
            };
            Phases::Narrow(phases.into_iter().map(products).collect())
        } else {
            let blocks = blocks(g.in_channels);
            let of_pixels = |Phase { rows, columns, offsets, elements }: Phase| {
                let grid = Grid::new(rows, columns, g.stride, lanes(arch), |r, c| frame.at(0, r, c));
                let pack = |weight: &[f32]| {
                    pack(&blocks, g.in_channels, elements.len(), |channel, k| weight_of(weight, &elements, channel, k))
                };
                let weights = g.group_weights(weight).map(pack).collect();
                PixelPhase { offsets, weights, grid }
            };
            let phases = phases.into_iter().map(of_pixels).collect();
            Phases::Pixels { arch, blocks, phases }
        };
        Self { g, frame, phases, every_pixel_is_read }
    }

    /// How many images it takes at a time, at least.
    fn at_a_time(&self) -> usize {
        match &self.phases {
            Phases::Pixels { .. } => 1,
            Phases::Narrow(_) => narrow::images_at_a_time(self.g.height * self.g.width / self.g.stride.pow(2)),
        }
    }

    fn scratch(&self, images: usize) -> InputScratch {
        match &self.phases {
            Phases::Pixels { blocks, phases, .. } => {
                let pixels = phases.iter().map(|phase| phase.grid.padded_pixels()).max().unwrap_or(0);
                let products = Box::new_uninit_slice(blocks.iter().sum::<usize>() * pixels);
                (vec![0.0; self.frame.len()], products, Vec::new())
            }
            Phases::Narrow(_) => (vec![0.0; images * self.frame.len()], Box::default(), Vec::new()),
        }
    }

    /// Takes the `at`-th section, of this group. In vectors of pixels all of `dx`, the section's, is written then.
    fn take(
        &self,
        group: usize,
        dy: &[f32],
        at: usize,
        dx: &mut [MaybeUninit<f32>],
        (framed, buffer, _): &mut InputScratch,
    ) {
        let g = self.g;
        if !self.every_pixel_is_read {
            dx.fill(MaybeUninit::new(0.0));
        }
        let Phases::Pixels { arch, blocks, phases } = &self.phases else {
            return self.frame.fill(dy, &mut framed[at * self.frame.len()..][..self.frame.len()]);
        };
        self.frame.fill(dy, framed);
        let channels = blocks.iter().sum::<usize>();
        for PixelPhase { offsets, weights, grid } in phases {
            let weight = &weights[group];
            let products = |out: &mut [MaybeUninit<f32>]| {
                let pixels = &grid.pixels;
                arch.dispatch(Products { x: framed, offsets, pixels, blocks, weight, out });
            };
            if grid.is_whole(g.width) && channels == g.in_channels {
                products(dx);
            } else {
                let buffer = &mut buffer[..channels * grid.padded_pixels()];
                products(buffer);
                grid.write(buffer, dx, g.height, g.width);
            }
        }
    }

    /// Writes all of `dx` of the images that were taken, where that was not done.
    fn finish(&self, images: usize, dx: &mut [MaybeUninit<f32>], (framed, _, out): &mut InputScratch) {
        let Phases::Narrow(phases) = &self.phases else { return };
        for (products, places) in phases {
            products.run(framed, self.frame.len(), images, out);
            for (at, dx) in dx.chunks_exact_mut(self.g.in_size()).take(images).enumerate() {
                products.scatter(at, images, out, places, self.g.height * self.g.width, dx);
            }
        }
    }
}

/// The input pixels that read the same taps, for the gradient by the input.
struct Phase {
    /// Every stride-th of these.
    rows: Range<usize>,
    columns: Range<usize>,
    /// Where in the frame each element is that they read.
    offsets: Vec<usize>,
    /// The output channel and the tap of each.
    elements: Vec<(usize, usize)>,
}

/// A [`Phase`] in vectors of pixels.
struct PixelPhase {
    offsets: Vec<usize>,
    /// The weights of each group.
    weights: Vec<Vec<f32>>,
    grid: Grid,
}

/// All phases that read a tap; the gradient at other pixels is zero.
fn phases(g: &Geometry, frame: &Frame) -> Vec<Phase> {
    let s = g.stride;
    // For the image's rows (or columns) from one of the first s on in steps of s: the taps that they read, and where in the
    // frame the first row finds each, from up to down.
    let side = |kernel: usize, size: usize, before: usize| {
        (0..s.min(size)).map(move |first| {
            let place = |tap: usize| (first + g.padding + before * s).checked_sub(tap * g.dilation);
            let taps = (0..kernel).rev().filter_map(|tap| Some((tap, place(tap)?)));
            let taps: Vec<(usize, usize)> =
                taps.filter(|(_, place)| place.is_multiple_of(s)).map(|(tap, place)| (tap, place / s)).collect();
            (first..size, taps)
        })
    };
    let mut phases = Vec::new();
    for (rows, a_taps) in side(g.kernel_height, g.height, frame.top) {
        for (columns, b_taps) in side(g.kernel_width, g.width, frame.left) {
            if a_taps.is_empty() || b_taps.is_empty() {
                continue;
            }
            let mut offsets = Vec::new();
            let mut elements = Vec::new();
            for o in 0..g.out_channels {
                for &(a, row) in &a_taps {
                    for &(b, column) in &b_taps {
                        offsets.push(frame.at(o, row, column));
                        elements.push((o, a * g.kernel_width + b));
                    }
                }
            }
            phases.push(Phase { rows: rows.clone(), columns, offsets, elements });
        }
    }
    phases
}

/// Weights in the order in which [`Products`] reads them; channels that are missing are zero.
fn pack(blocks: &[usize], channels: usize, window: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
    let firsts: Vec<usize> = (0..blocks.len()).map(|block| blocks[..block].iter().sum()).collect();
    let pack = |(&block, first): (&usize, usize)| {
        let of_k = |k| (first..first + block).map(move |channel| (channel, k));
        let all = (0..window).flat_map(of_k);
        all.map(|(channel, k)| if channel < channels { weight(channel, k) } else { 0.0 }).collect::<Vec<f32>>()
    };
    let at_least = WEIGHTS_PER_TASK.div_ceil(blocks.iter().max().map_or(1, |block| block * window));
    blocks.par_iter().zip(firsts).with_min_len(at_least).map(pack).collect::<Vec<_>>().concat()
}
