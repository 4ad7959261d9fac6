//! The gradient by the transformed kernels.

use super::{
    tiling::{Tiling, elements_of_task, tiles_of_input},
    transform::ELEMENTS,
};
use crate::{
    cpu::{product::Product, tensor::vec_written},
    shape::conv2d::Geometry,
};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The gradient by the weight, some images at a time.
pub(super) struct WeightGradient {
    pub(super) input: Tiling,
    /// The gradient by the output, in tiles of 2x2.
    pub(super) output: Tiling,
}

impl WeightGradient {
    pub(super) fn new(g: &Geometry) -> Self {
        let input = tiles_of_input(g);
        let (channels, height, width) = (g.out_channels, g.out_height, g.out_width);
        let output = Tiling { channels, height, width, padding: 0, side: 2, ..input };
        Self { input, output }
    }

    pub(super) fn sides(&self) -> [Tiling; 2] {
        [self.input, self.output]
    }

    /// Room for the tiles of some images and of their gradients.
    pub(super) fn scratch(&self, images: usize) -> [Vec<f32>; 2] {
        self.sides().map(|side| vec![0.0; images * side.image_len()])
    }

    /// Adds the gradient of the first `images` images to the sums, `[element][out channel][in channel]`; there are none before the
    /// first.
    pub(super) fn add(&self, images: usize, [x, dy]: &[Vec<f32>; 2], sums: &mut Vec<f32>) {
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
