//! The transforms of kernels, and of their gradients back.

use super::{
    tiling::{NUMBERS_PER_TASK, ROW_PADDING},
    transform::ELEMENTS,
};
use crate::cpu::{simd::simd, tensor::vec_written};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// How many in channels' kernels a task transforms.
const CHANNELS_PER_TASK: usize = 8;

/// `G g G^T` of each kernel `g`, whose taps are `weight(out channel, in channel, tap)`: for each in channel `[element][out channel]`, and
/// [`ROW_PADDING`] numbers.
pub(super) fn transform_kernels(
    outputs: usize,
    inputs: usize,
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Vec<f32> {
    let len = ELEMENTS * outputs + ROW_PADDING;
    let write = |kernels: &mut [MaybeUninit<f32>]| {
        // Some in channels at a time, whose taps lie side by side in the weight.
        let some = kernels.par_chunks_mut(CHANNELS_PER_TASK * len).enumerate();
        some.for_each_init(
            || vec![0.0; 9 * outputs * CHANNELS_PER_TASK],
            |taps, (at, rows)| {
                let channels = at * CHANNELS_PER_TASK..at * CHANNELS_PER_TASK + rows.len() / len;
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

simd! {
    /// The kernels of an in channel, `[out channel][tap]`, to `[element][out channel]`, all of it.
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
}

/// `G^T m G` of the sums `m`, `[element][out channel][in channel]` to the order of the weight.
pub(super) fn kernels_back(sums: &[f32], inputs: usize) -> Vec<f32> {
    let count = sums.len() / ELEMENTS;
    let mut weight = vec![0.0; count * 9];
    let rows = weight.par_chunks_exact_mut(9 * inputs).enumerate();
    rows.with_min_len(NUMBERS_PER_TASK.div_ceil(ELEMENTS * inputs)).for_each(|(o, row)| {
        row_back(&sums[o * inputs..], count, row);
    });
    weight
}

simd! {
    /// The weight of an out channel, from sums whose elements are so far `apart`.
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
}
