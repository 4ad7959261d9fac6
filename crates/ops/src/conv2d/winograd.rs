//! Convolution of 3x3 and stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016, arXiv:1509.09308).
//!
//! A tile of 2x2 output pixels reads 4x4 pixels `d`. With the kernel `g` and the matrices `A`, `B` and `G` below it is
//!
//! ```text
//! A^T ((G g G^T) * (B^T d B)) A        *: element by element
//! ```
//!
//! with 16 products instead of 36. Summed over channels, each of the 16 elements is a matrix product: transformed kernels (out
//! channels, in channels) times transformed tiles (in channels, tiles). The transforms cost a few additions per pixel and channel,
//! which many channels make up for: see [`Winograd::suits`].
//!
//! Rounding errors are a few times those of the direct sum. What is infinite or NaN spreads to the other pixels of its tile.

use super::{
    direct::{copy_row, split},
    geometry::Geometry,
};
use crate::{
    host::{vec_written, written},
    product::{Matrix, Product},
};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// From as many channels on, on both sides, this method is taken. Networks with layers of 64 and of 128 channels gain by it
/// (benches/RESULTS.md); for 32 and fewer a count of the operations says that transforms cost what the products save.
const MANY_CHANNELS: usize = 48;
/// Elements of a transformed tile.
const ELEMENTS: usize = 16;
/// Tiles that are transformed at a time.
const LANES: usize = 8;

/// The sizes and kernels of a convolution of images whose rows and columns are padded by zeros.
pub(super) struct Winograd {
    in_channels: usize,
    out_channels: usize,
    width: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
    /// Tiles of an image: rows and columns.
    rows: usize,
    columns: usize,
    /// `[element][out channel][in channel]`
    kernels: Vec<f32>,
}

/// Tiles that a task of the forward pass takes, at least.
const ENOUGH_TILES: usize = 128;

/// The convolution, where the method [suits](Winograd::suits); see [`Convolve::forward`](super::Convolve::forward).
pub(super) fn forward<R: Send>(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    seen: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    let method = Winograd::forward(g, weight);
    let at_a_time = ENOUGH_TILES.div_ceil(method.tiles()).clamp(1, g.images_per_part());
    let mut results = Vec::new();
    let write = |y: &mut [MaybeUninit<f32>]| {
        let tasks = y.par_chunks_mut(at_a_time * g.out_size()).zip(x.par_chunks(at_a_time * g.in_size())).enumerate();
        let tasks = tasks.map_init(
            || method.scratch(at_a_time),
            |scratch, (task, (y, x))| {
                let images = x.len() / g.in_size();
                for (at, x) in x.chunks_exact(g.in_size()).enumerate() {
                    method.take(x, at, scratch);
                }
                method.multiply(images, scratch);
                let write = |(at, y): (usize, &mut [MaybeUninit<f32>])| {
                    method.write(at, images, y, scratch);
                    // SAFETY: all pixels were just written.
                    seen(task * at_a_time + at, unsafe { written(y) })
                };
                y.chunks_exact_mut(g.out_size()).enumerate().map(write).collect::<Vec<R>>()
            },
        );
        results = tasks.collect::<Vec<_>>();
    };
    // SAFETY: the tasks are all images, and each writes all of each.
    let y = unsafe { vec_written(g.images * g.out_size(), write) };
    (y, results.into_iter().flatten().collect())
}

/// Room for some images.
pub(super) struct Scratch {
    /// The even and odd columns of the even rows of a channel, and of the odd rows, each (rows + 1, columns + 1).
    planes: [Vec<f32>; 4],
    /// The transformed tiles of a channel, or the output of one.
    transformed: Vec<f32>,
    /// `[element][in channel][tile]`
    tiles: Vec<f32>,
    /// `[element][out channel][tile]`
    products: Vec<f32>,
    /// Tiles of all images.
    room: usize,
}

impl Winograd {
    /// Whether this method is both possible and quicker than the direct one.
    pub(super) fn suits(g: &Geometry) -> bool {
        (g.kernel_height, g.kernel_width, g.stride, g.dilation, g.groups) == (3, 3, 1, 1, 1)
            && g.padding <= 2
            && g.in_channels.min(g.out_channels) >= MANY_CHANNELS
    }

    /// Of the convolution.
    pub(super) fn forward(g: &Geometry, weight: &[f32]) -> Self {
        let kernels =
            transform_kernels(g.out_channels, g.in_channels, |o, c, tap| weight[(o * g.in_channels + c) * 9 + tap]);
        Self {
            in_channels: g.in_channels,
            out_channels: g.out_channels,
            width: g.width,
            padding: g.padding,
            out_height: g.out_height,
            out_width: g.out_width,
            rows: g.out_height.div_ceil(2),
            columns: g.out_width.div_ceil(2),
            kernels,
        }
    }

    /// Of the gradient by the input: the gradient by the output with the kernels turned around.
    pub(super) fn input_gradient(g: &Geometry, weight: &[f32]) -> Self {
        let kernels =
            transform_kernels(g.in_channels, g.out_channels, |c, o, tap| weight[(o * g.in_channels + c) * 9 + 8 - tap]);
        Self {
            in_channels: g.out_channels,
            out_channels: g.in_channels,
            width: g.out_width,
            padding: 2 - g.padding,
            out_height: g.height,
            out_width: g.width,
            rows: g.height.div_ceil(2),
            columns: g.width.div_ceil(2),
            kernels,
        }
    }

    /// Tiles of an image.
    pub(super) fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// Columns of a plane.
    fn pitch(&self) -> usize {
        self.columns + 1
    }

    /// Places of a plane where a tile begins, and those that fill up vectors.
    fn places(&self) -> usize {
        (self.rows * self.pitch()).next_multiple_of(LANES)
    }

    pub(super) fn scratch(&self, images: usize) -> Scratch {
        let room = images * self.tiles();
        let plane = || vec![0.0; self.places() + self.pitch() + 1];
        Scratch {
            planes: [plane(), plane(), plane(), plane()],
            transformed: vec![0.0; ELEMENTS * self.places().max(self.tiles() + LANES)],
            tiles: vec![0.0; ELEMENTS * self.in_channels * room],
            // The last vector of tiles may reach beyond.
            products: vec![0.0; ELEMENTS * self.out_channels * room + LANES],
            room,
        }
    }

    /// Transforms the `at`-th image.
    pub(super) fn take(&self, image: &[f32], at: usize, scratch: &mut Scratch) {
        let Scratch { planes, transformed, tiles, room, .. } = scratch;
        let (places, pitch) = (self.places(), self.pitch());
        for (channel, plane) in image.chunks_exact(image.len() / self.in_channels).enumerate() {
            for (i, row) in (self.padding..).zip(plane.chunks_exact(self.width)) {
                let [even_row, odd_row, even_row2, odd_row2] = &mut *planes;
                let (even, odd) = if i % 2 == 0 { (even_row, odd_row) } else { (even_row2, odd_row2) };
                split(row, self.padding, &mut even[i / 2 * pitch..], &mut odd[i / 2 * pitch..]);
            }
            transform(planes, pitch, places, transformed);
            for (element, transformed) in transformed.chunks_exact(places).take(ELEMENTS).enumerate() {
                let place = (element * self.in_channels + channel) * *room + at * self.tiles();
                let rows = tiles[place..][..self.tiles()].chunks_exact_mut(self.columns);
                rows.zip(transformed.chunks_exact(pitch)).for_each(|(to, from)| copy_row(&from[..self.columns], to));
            }
        }
    }

    /// Multiplies the tiles of the first `images` images.
    pub(super) fn multiply(&self, images: usize, scratch: &mut Scratch) {
        let Scratch { tiles, products, room, .. } = scratch;
        let columns = images * self.tiles();
        let product = Product { rows: self.out_channels, columns, inner: self.in_channels };
        let tiles = tiles.chunks_exact(self.in_channels * *room);
        let kernels = self.kernels.chunks_exact(self.out_channels * self.in_channels);
        for ((tiles, kernels), out) in tiles.zip(kernels).zip(products.chunks_exact_mut(self.out_channels * columns)) {
            product.set(out, Matrix::rows(kernels, self.in_channels), Matrix::rows(tiles, *room));
        }
    }

    /// Writes the `at`-th of `images` output images, all of it.
    pub(super) fn write(&self, at: usize, images: usize, image: &mut [MaybeUninit<f32>], scratch: &mut Scratch) {
        let Scratch { transformed, products, .. } = scratch;
        let (tiles, size) = (self.tiles(), self.tiles().next_multiple_of(LANES));
        for (channel, plane) in image.chunks_exact_mut(self.out_height * self.out_width).enumerate() {
            let first = channel * images * tiles + at * tiles;
            transform_back(products, first, self.out_channels * images * tiles, size, transformed);
            let [upper_left, upper_right, lower_left, lower_right] =
                std::array::from_fn(|pixel| &transformed[pixel * size..][..tiles]);
            for (i, row) in plane.chunks_exact_mut(self.out_width).enumerate() {
                let (left, right) = if i % 2 == 0 { (upper_left, upper_right) } else { (lower_left, lower_right) };
                let [left, right] = [left, right].map(|pixels| &pixels[i / 2 * self.columns..][..self.columns]);
                let mut pairs = row.chunks_exact_mut(2);
                for ((pair, left), right) in (&mut pairs).zip(left).zip(right) {
                    pair[0].write(*left);
                    pair[1].write(*right);
                }
                if let [last] = pairs.into_remainder() {
                    last.write(left[self.columns - 1]);
                }
            }
        }
    }
}

/// `G g G^T` of each kernel `g`, whose taps are `weight(out channel, in channel, tap)`.
fn transform_kernels(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    // `G`: 1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1.
    let g = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let mut kernels = vec![0.0; ELEMENTS * outputs * inputs];
    for o in 0..outputs {
        for i in 0..inputs {
            let columns: [[f32; 4]; 3] = std::array::from_fn(|b| g(std::array::from_fn(|a| weight(o, i, a * 3 + b))));
            for a in 0..4 {
                for (b, element) in g(columns.map(|column| column[a])).into_iter().enumerate() {
                    kernels[((a * 4 + b) * outputs + o) * inputs + i] = element;
                }
            }
        }
    }
    kernels
}

/// `B^T d B` of the tiles `d` that begin at each of the places: `[element][place]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn transform(planes: &[Vec<f32>; 4], pitch: usize, places: usize, out: &mut [f32]) {
    // `B^T`: 1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1.
    #[inline(always)]
    fn b([a, b, c, d]: [[f32; LANES]; 4]) -> [[f32; LANES]; 4] {
        let map =
            |f: fn(f32, f32) -> f32, x: [f32; LANES], y: [f32; LANES]| std::array::from_fn(|lane| f(x[lane], y[lane]));
        [map(|x, y| x - y, a, c), map(|x, y| x + y, b, c), map(|x, y| x - y, c, b), map(|x, y| x - y, b, d)]
    }
    for place in (0..places).step_by(LANES) {
        // Of each column of the tile.
        let mut columns = [[[0f32; LANES]; 4]; 4];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut pixels = [[0f32; LANES]; 4];
            for (i, pixels) in pixels.iter_mut().enumerate() {
                let from = &planes[i % 2 * 2 + j % 2][place + i / 2 * pitch + j / 2..][..LANES];
                pixels.copy_from_slice(from);
            }
            *column = b(pixels);
        }
        for i in 0..4 {
            for (j, element) in b([columns[0][i], columns[1][i], columns[2][i], columns[3][i]]).into_iter().enumerate()
            {
                out[(i * 4 + j) * places + place..][..LANES].copy_from_slice(&element);
            }
        }
    }
}

/// `A^T m A` of the products `m`, of which an element's begin at `first`, `stride` after the last element's: `[pixel][tile]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn transform_back(products: &[f32], first: usize, stride: usize, tiles: usize, out: &mut [f32]) {
    // `A^T`: 1 1 1 0, 0 1 -1 -1.
    #[inline(always)]
    fn a([a, b, c, d]: [[f32; LANES]; 4]) -> [[f32; LANES]; 2] {
        [
            std::array::from_fn(|lane| a[lane] + b[lane] + c[lane]),
            std::array::from_fn(|lane| b[lane] - c[lane] - d[lane]),
        ]
    }
    for tile in (0..tiles).step_by(LANES) {
        let mut columns = [[[0f32; LANES]; 2]; 4];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut elements = [[0f32; LANES]; 4];
            for (i, elements) in elements.iter_mut().enumerate() {
                elements.copy_from_slice(&products[(i * 4 + j) * stride + first + tile..][..LANES]);
            }
            *column = a(elements);
        }
        for i in 0..2 {
            let pixels = a([columns[0][i], columns[1][i], columns[2][i], columns[3][i]]);
            for (j, pixels) in pixels.into_iter().enumerate() {
                out[(i * 2 + j) * tiles + tile..][..LANES].copy_from_slice(&pixels);
            }
        }
    }
}
