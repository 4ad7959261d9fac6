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

use super::{
    gradient::{Gradients, OutputGradient, Wanted, gradients_by_parts},
    tile::lanes,
};
use crate::shape::conv2d::Geometry;
use crate::{
    cpu::product::{Matrix, Product},
    cpu::tensor::{vec_written, written},
    cpu::transpose::Transpose,
};
use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// From as many channels on, on both sides, this method is taken. On a processor with AVX2 the three passes of a convolution of 64
/// channels take 0.88 of the direct method's time by it, those of 32 channels 1.06 and those of 16 channels 1.4 (benches/RESULTS.md).
const MANY_CHANNELS: usize = 48;
/// Elements of a transformed tile.
const ELEMENTS: usize = 16;
/// Tiles that a task takes at a time, at least.
const ENOUGH_TILES: usize = 128;

/// Tiles whose gradient by the weight a part sums, at least: as many as make up for adding the parts up.
const ENOUGH_TILES_OF_PART: usize = 256;

/// Numbers between the rows of matrices. Without them the rows would often be a multiple of 4 KiB apart, and the first-level cache
/// holds 8 such lines.
const APART: usize = 16;

/// Multiplications and numbers to transform that are worth a task within a task, which threads take that have nothing else to do.
const ENOUGH_MULTIPLICATIONS: usize = 1 << 22;
const ENOUGH_NUMBERS: usize = 1 << 17;

/// In channels whose kernels a task transforms.
const CHANNELS_AT_A_TIME: usize = 8;

/// Whether this method is both possible and quicker than the direct one.
pub(super) fn suits(g: &Geometry) -> bool {
    (g.kernel_height, g.kernel_width, g.stride, g.dilation, g.groups) == (3, 3, 1, 1, 1)
        && g.padding <= 2
        && g.in_channels.min(g.out_channels) >= MANY_CHANNELS
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
    let per_part = g.images_per_part().max(ENOUGH_TILES_OF_PART.div_ceil(tiling.tiles()));
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

/// Images in tiles of 4x4 pixels, every other pixel of every other row, and what fills them up.
#[derive(Clone, Copy)]
struct Tiling {
    channels: usize,
    height: usize,
    width: usize,
    padding: usize,
    /// Tiles of an image.
    rows: usize,
    columns: usize,
    /// Pixels of a tile's side.
    side: usize,
    arch: Arch,
    /// Channels of a vector.
    lanes: usize,
}

impl Tiling {
    fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// How many images are taken at a time, no more than `most`.
    fn at_a_time(&self, most: usize) -> usize {
        ENOUGH_TILES.div_ceil(self.tiles()).clamp(1, most)
    }

    /// How many images are worth a task within a task.
    fn images_of_task(&self) -> usize {
        ENOUGH_NUMBERS.div_ceil(self.image_len())
    }

    /// Rows and columns that the tiles cover.
    fn covered(&self) -> (usize, usize) {
        let pixels = |tiles: usize| 2 * (tiles - 1) + self.side;
        (pixels(self.rows), pixels(self.columns))
    }

    /// Room for the pixels of a vector of channels; around the image it stays zero.
    fn pixels(&self) -> Vec<f32> {
        let (rows, columns) = self.covered();
        // The image may reach beyond what is covered.
        let (rows, columns) = (rows.max(self.padding + self.height), columns.max(self.padding + self.width));
        vec![0.0; rows * columns * self.lanes]
    }

    /// Numbers of a row of [`Self::pixels`].
    fn pitch(&self) -> usize {
        self.covered().1.max(self.padding + self.width) * self.lanes
    }

    /// Channels, with those that fill up vectors.
    fn padded_channels(&self) -> usize {
        self.channels.next_multiple_of(self.lanes)
    }

    /// Numbers of a transformed tile, `[element][channel]`.
    fn tile_len(&self) -> usize {
        ELEMENTS * self.padded_channels() + APART
    }

    /// Numbers of the transformed tiles of an image.
    fn image_len(&self) -> usize {
        self.tiles() * self.tile_len()
    }

    /// The transformed tiles of an element, the channels of a tile in a row.
    fn element<'a>(&self, tiles: &'a [f32], element: usize) -> Matrix<'a, f32> {
        Matrix::rows(&tiles[element * self.padded_channels()..], self.tile_len())
    }

    /// How the pixels of a vector of channels lie, where rows are this far apart.
    fn pixel_places(&self, pitch: usize) -> Places {
        Places { first: 0, row: 2 * pitch, column: 2 * self.lanes, inside: [pitch, self.lanes] }
    }

    /// Writes an image's tiles, transformed.
    fn take(&self, matrices: Matrices, image: &[f32], pixels: &mut [f32], tiles: &mut [f32]) {
        let (plane, pitch, channels) = (self.height * self.width, self.pitch(), self.padded_channels());
        let first_pixel = self.padding * (pitch + self.lanes);
        for (block, planes) in image.chunks(self.lanes * plane).enumerate() {
            let (rows, columns, from) = (planes.len() / plane, self.width, [plane, self.width]);
            let transpose = Transpose { count: self.height, rows, columns, from, to: [self.lanes, pitch] };
            transpose.run(planes, &mut pixels[first_pixel..]);
            let elements = Places {
                first: block * self.lanes,
                row: self.columns * self.tile_len(),
                column: self.tile_len(),
                inside: [4 * channels, channels],
            };
            self.arch.dispatch(Transform {
                matrices,
                rows: self.rows,
                columns: self.columns,
                from: (pixels, self.pixel_places(pitch)),
                to: (tiles, elements),
            });
        }
    }
}

/// A convolution with transformed kernels.
struct Filter {
    input: Tiling,
    out_channels: usize,
    out_height: usize,
    out_width: usize,
    /// See [`transform_kernels`].
    kernels: Vec<f32>,
}

/// Room for some images: their tiles, `[tile][element][channel]`, and the products, `[element][tile][out channel]`.
type Scratch = (Vec<f32>, Vec<f32>);

impl Filter {
    /// The convolution.
    fn forward(g: &Geometry, weight: &[f32]) -> Self {
        let kernels =
            transform_kernels(g.out_channels, g.in_channels, |o, c, tap| weight[(o * g.in_channels + c) * 9 + tap]);
        Self {
            input: tiles_of_input(g),
            out_channels: g.out_channels,
            out_height: g.out_height,
            out_width: g.out_width,
            kernels,
        }
    }

    /// The gradient by the input: the gradient by the output with the kernels turned around.
    fn input_gradient(g: &Geometry, weight: &[f32]) -> Self {
        let kernels =
            transform_kernels(g.in_channels, g.out_channels, |c, o, tap| weight[(o * g.in_channels + c) * 9 + 8 - tap]);
        let input = Tiling {
            channels: g.out_channels,
            height: g.out_height,
            width: g.out_width,
            padding: 2 - g.padding,
            rows: g.height.div_ceil(2),
            columns: g.width.div_ceil(2),
            ..tiles_of_input(g)
        };
        Self { input, out_channels: g.in_channels, out_height: g.height, out_width: g.width, kernels }
    }

    fn scratch(&self, images: usize) -> Scratch {
        // The last vector may reach beyond what is written.
        let products = ELEMENTS * (images * self.input.tiles() * self.out_channels + APART);
        (vec![0.0; images * self.input.image_len()], vec![0.0; products])
    }

    /// Room for the pixels of a vector of channels of an output image.
    fn output(&self) -> Vec<f32> {
        vec![0.0; 4 * self.input.tiles() * self.input.lanes]
    }

    /// Multiplies the tiles of the first `images` images.
    fn multiply(&self, images: usize, tiles: &[f32], products: &mut [f32]) {
        let (rows, columns, inner) = (images * self.input.tiles(), self.out_channels, self.input.channels);
        let elements = products[..ELEMENTS * (rows * columns + APART)].par_chunks_mut(rows * columns + APART);
        elements.enumerate().with_min_len(elements_of_task(rows * columns * inner)).for_each(|(element, out)| {
            let kernels = Matrix::rows(&self.kernels[element * columns..], ELEMENTS * columns + APART);
            Product { rows, columns, inner }.set(
                &mut out[..rows * columns],
                self.input.element(tiles, element),
                kernels,
            );
        });
    }

    /// Writes the `at`-th of `images` output images, all of it.
    fn write(&self, at: usize, images: usize, image: &mut [MaybeUninit<f32>], products: &[f32], output: &mut [f32]) {
        let (tiling, plane, channels) = (&self.input, self.out_height * self.out_width, self.out_channels);
        let (pitch, apart) = (2 * tiling.columns * tiling.lanes, images * tiling.tiles() * channels + APART);
        for (block, planes) in image.chunks_mut(tiling.lanes * plane).enumerate() {
            let elements = Places {
                first: at * tiling.tiles() * channels + block * tiling.lanes,
                row: tiling.columns * channels,
                column: channels,
                inside: [4 * apart, apart],
            };
            tiling.arch.dispatch(Transform {
                matrices: Matrices::Output,
                rows: tiling.rows,
                columns: tiling.columns,
                from: (products, elements),
                to: (output, tiling.pixel_places(pitch)),
            });
            let (rows, columns) = (self.out_width, planes.len() / plane);
            let (from, to) = ([tiling.lanes, pitch], [plane, self.out_width]);
            Transpose { count: self.out_height, rows, columns, from, to }.run(output, planes);
        }
    }
}

/// How many elements, of so many multiplications each, are worth a task within a task.
fn elements_of_task(multiplications: usize) -> usize {
    ENOUGH_MULTIPLICATIONS.div_ceil(multiplications.max(1))
}

fn tiles_of_input(g: &Geometry) -> Tiling {
    let arch = Arch::new();
    Tiling {
        arch,
        lanes: lanes(arch),
        channels: g.in_channels,
        height: g.height,
        width: g.width,
        padding: g.padding,
        rows: g.out_height.div_ceil(2),
        columns: g.out_width.div_ceil(2),
        side: 4,
    }
}

/// The gradient by the weight, some images at a time.
struct WeightGradient {
    input: Tiling,
    /// The gradient by the output, in tiles of 2x2.
    output: Tiling,
}

impl WeightGradient {
    fn new(g: &Geometry) -> Self {
        let input = tiles_of_input(g);
        let (channels, height, width) = (g.out_channels, g.out_height, g.out_width);
        let output = Tiling { channels, height, width, padding: 0, side: 2, ..input };
        Self { input, output }
    }

    fn sides(&self) -> [Tiling; 2] {
        [self.input, self.output]
    }

    /// Room for the tiles of some images and of their gradients.
    fn scratch(&self, images: usize) -> [Vec<f32>; 2] {
        self.sides().map(|side| vec![0.0; images * side.image_len()])
    }

    /// Adds the gradient of the first `images` images to the sums, `[element][out channel][in channel]`; there are none before the
    /// first.
    fn add(&self, images: usize, [x, dy]: &[Vec<f32>; 2], sums: &mut Vec<f32>) {
        let (rows, columns, inner) = (self.output.channels, self.input.channels, images * self.input.tiles());
        let at_least = elements_of_task(rows * columns * inner);
        let factors = |element| (self.output.element(dy, element).transposed(), self.input.element(x, element));
        let product = Product { rows, columns, inner };
        if sums.is_empty() {
            let write = |sums: &mut [MaybeUninit<f32>]| {
                let elements = sums.par_chunks_exact_mut(rows * columns).enumerate().with_min_len(at_least);
                elements.for_each(|(element, sums)| {
                    let (dy, x) = factors(element);
                    product.write(sums, dy, x);
                });
            };
            // SAFETY: each element's product has as many rows and columns as there are sums of it.
            *sums = unsafe { vec_written(ELEMENTS * rows * columns, write) };
            return;
        }
        let elements = sums.par_chunks_exact_mut(rows * columns).enumerate().with_min_len(at_least);
        elements.for_each(|(element, sums)| {
            let (dy, x) = factors(element);
            product.add(sums, dy, x);
        });
    }
}

/// `G g G^T` of each kernel `g`, whose taps are `weight(out channel, in channel, tap)`: for each in channel `[element][out channel]`, and
/// [`APART`] numbers.
fn transform_kernels(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Vec<f32> {
    let len = ELEMENTS * outputs + APART;
    let write = |kernels: &mut [MaybeUninit<f32>]| {
        // Some in channels at a time, whose taps lie side by side in the weight.
        let some = kernels.par_chunks_mut(CHANNELS_AT_A_TIME * len).enumerate();
        some.for_each_init(
            || vec![0.0; 9 * outputs * CHANNELS_AT_A_TIME],
            |taps, (at, rows)| {
                let channels = at * CHANNELS_AT_A_TIME..at * CHANNELS_AT_A_TIME + rows.len() / len;
                for o in 0..outputs {
                    for (i, taps) in channels.clone().zip(taps.chunks_exact_mut(9 * outputs)) {
                        let taps: &mut [f32; 9] = &mut taps.as_chunks_mut().0[o];
                        *taps = std::array::from_fn(|tap| weight(o, i, tap));
                    }
                }
                for (row, taps) in rows.chunks_exact_mut(len).zip(taps.chunks_exact(9 * outputs)) {
                    let (row, apart) = row.split_at_mut(ELEMENTS * outputs);
                    transform_row(taps, row);
                    apart.fill(MaybeUninit::new(0.0));
                }
            },
        );
    };
    // SAFETY: each row's elements and what keeps them apart are written.
    unsafe { vec_written(inputs * len, write) }
}

/// The kernels of an in channel, `[out channel][tap]`, to `[element][out channel]`, all of it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn transform_row(kernels: &[f32], row: &mut [MaybeUninit<f32>]) {
    // `G`: 1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1.
    let g = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let outputs = row.len() / ELEMENTS;
    for (o, kernel) in kernels.as_chunks::<9>().0.iter().enumerate() {
        let columns: [[f32; 4]; 3] = std::array::from_fn(|b| g(std::array::from_fn(|a| kernel[a * 3 + b])));
        for a in 0..4 {
            for (b, element) in g(columns.map(|column| column[a])).into_iter().enumerate() {
                row[(a * 4 + b) * outputs + o].write(element);
            }
        }
    }
}

/// `G^T m G` of the sums `m`, `[element][out channel][in channel]` to the order of the weight.
fn kernels_back(sums: &[f32], inputs: usize) -> Vec<f32> {
    let count = sums.len() / ELEMENTS;
    let mut weight = vec![0.0; count * 9];
    let rows = weight.par_chunks_exact_mut(9 * inputs).enumerate();
    rows.with_min_len(ENOUGH_NUMBERS.div_ceil(ELEMENTS * inputs)).for_each(|(o, row)| {
        row_back(&sums[o * inputs..], count, row);
    });
    weight
}

/// Those of an out channel, whose elements are so far apart.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn row_back(sums: &[f32], apart: usize, row: &mut [f32]) {
    // `G^T`: 1 1/2 1/2 0, 0 1/2 -1/2 0, 0 1/2 1/2 1.
    let g = |[a, b, c, d]: [f32; 4]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    for (at, kernel) in row.as_chunks_mut::<9>().0.iter_mut().enumerate() {
        let columns: [[f32; 3]; 4] =
            std::array::from_fn(|j| g(std::array::from_fn(|i| sums[(i * 4 + j) * apart + at])));
        for (a, row) in kernel.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *row = g(columns.map(|column| column[a]));
        }
    }
}

/// How vectors of channels lie: that of the row `i` and the column `j` of a tile is at
/// `first + row r + column c + inside[0] i + inside[1] j`, where the tile is in the row `r` and the column `c` of all tiles.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    row: usize,
    column: usize,
    inside: [usize; 2],
}

#[derive(Clone, Copy)]
enum Matrices {
    /// Pixels `d`, 4x4, to `B^T d B`.
    Input,
    /// Pixels `e` of the gradient by the output, 2x2, to `A e A^T`.
    OutputGradient,
    /// Elements `m`, 4x4, to `A^T m A`.
    Output,
}

/// Transforms the tiles of a vector of channels.
struct Transform<'a> {
    matrices: Matrices,
    rows: usize,
    columns: usize,
    from: (&'a [f32], Places),
    to: (&'a mut [f32], Places),
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let add = |x, y| simd.add_f32s(x, y);
        let sub = |x, y| simd.sub_f32s(x, y);
        match self.matrices {
            // `B^T`: 1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1.
            Matrices::Input => self.tiles::<S, 4, 4>(simd, |[a, b, c, d]| [sub(a, c), add(b, c), sub(c, b), sub(b, d)]),
            // `A`: 1 0, 1 1, 1 -1, 0 -1.
            Matrices::OutputGradient => {
                self.tiles::<S, 2, 4>(simd, |[a, b]| [a, add(a, b), sub(a, b), simd.neg_f32s(b)]);
            }
            // `A^T`: 1 1 1 0, 0 1 -1 -1.
            Matrices::Output => {
                self.tiles::<S, 4, 2>(simd, |[a, b, c, d]| [add(add(a, b), c), sub(sub(b, c), d)]);
            }
        }
    }
}

impl Transform<'_> {
    /// Of N x N vectors to M x M: `by` of each column, then of each row.
    #[inline(always)]
    fn tiles<S: Simd, const N: usize, const M: usize>(self, simd: S, by: impl Fn([S::f32s; N]) -> [S::f32s; M]) {
        let ((from, at), (to, to_at)) = (self.from, self.to);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let from = &from[at.first + row * at.row + column * at.column..];
                let to = &mut to[to_at.first + row * to_at.row + column * to_at.column..];
                let mut columns = [[simd.splat_f32s(0.0); M]; N];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut vectors = [simd.splat_f32s(0.0); N];
                    for (i, vector) in vectors.iter_mut().enumerate() {
                        let from = &from[i * at.inside[0] + j * at.inside[1]..][..S::F32_LANES];
                        *vector = S::as_simd_f32s(from).0[0];
                    }
                    *column = by(vectors);
                }
                for i in 0..M {
                    let mut vectors = [simd.splat_f32s(0.0); N];
                    for (vector, column) in vectors.iter_mut().zip(&columns) {
                        *vector = column[i];
                    }
                    for (j, vector) in by(vectors).iter().enumerate() {
                        let to = &mut to[i * to_at.inside[0] + j * to_at.inside[1]..][..S::F32_LANES];
                        S::as_mut_simd_f32s(to).0[0] = *vector;
                    }
                }
            }
        }
    }
}
