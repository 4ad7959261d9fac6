//! A convolution of tiles with transformed kernels.

use super::{
    kernels::transform_kernels,
    tiling::{ROW_PADDING, Tiling, elements_of_task, tiles_of_input},
    transform::{ELEMENTS, Matrices, Places, Transform},
};
use crate::{
    cpu::{
        product::{Matrix, Product},
        transpose::Transpose,
    },
    shape::conv2d::Geometry,
};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A convolution with transformed kernels.
pub(super) struct Filter {
    pub(super) input: Tiling,
    out_channels: usize,
    out_height: usize,
    out_width: usize,
    /// See [`transform_kernels`].
    kernels: Vec<f32>,
}

/// Room for some images: their tiles, `[tile][element][channel]`, and the products, `[element][tile][out channel]`.
pub(super) type Scratch = (Vec<f32>, Vec<f32>);

impl Filter {
    /// The convolution.
    pub(super) fn forward(g: &Geometry, weight: &[f32]) -> Self {
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
    pub(super) fn input_gradient(g: &Geometry, weight: &[f32]) -> Self {
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

    pub(super) fn scratch(&self, images: usize) -> Scratch {
        // The last vector may reach beyond what is written.
        let products = ELEMENTS * (images * self.input.tiles() * self.out_channels + ROW_PADDING);
        (vec![0.0; images * self.input.image_len()], vec![0.0; products])
    }

    /// Room for the pixels of a vector of channels of an output image.
    pub(super) fn output(&self) -> Vec<f32> {
        vec![0.0; 4 * self.input.tiles() * self.input.lanes]
    }

    /// Multiplies the tiles of the first `images` images.
    pub(super) fn multiply(&self, images: usize, tiles: &[f32], products: &mut [f32]) {
        let (rows, columns, inner) = (images * self.input.tiles(), self.out_channels, self.input.channels);
        let elements =
            products[..ELEMENTS * (rows * columns + ROW_PADDING)].par_chunks_mut(rows * columns + ROW_PADDING);
        elements.enumerate().with_min_len(elements_of_task(rows * columns * inner)).for_each(|(element, out)| {
            let kernels = Matrix::rows(&self.kernels[element * columns..], ELEMENTS * columns + ROW_PADDING);
            Product { rows, columns, inner }.set(
                &mut out[..rows * columns],
                self.input.element(tiles, element),
                kernels,
            );
        });
    }

    /// Writes the `at`-th of `images` output images, all of it.
    pub(super) fn write(
        &self,
        at: usize,
        images: usize,
        image: &mut [MaybeUninit<f32>],
        products: &[f32],
        output: &mut [f32],
    ) {
        let (tiling, plane, channels) = (&self.input, self.out_height * self.out_width, self.out_channels);
        let (pitch, apart) = (2 * tiling.columns * tiling.lanes, images * tiling.tiles() * channels + ROW_PADDING);
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
