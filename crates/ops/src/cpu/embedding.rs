//! Rows of a table by their indices: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        simd::simd,
        tensor::{Reading, copy, tensor, vec_written},
    },
    shape::{error::fail, gradients::Backward, rows::shape_of_rows},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Numbers that are worth a task.
const NUMBERS_PER_TASK: usize = 1 << 16;

/// That each of the contiguous indices names a row.
pub(crate) fn check_indices(indices: &Tensor, rows: usize) -> Result<()> {
    let read = Reading::new(indices);
    let read = read.slice::<u32>()?;
    if let Some(place) = read.iter().position(|&index| index as usize >= rows) {
        fail!("embedding: the index {} at place {place} is not below the {rows} rows of weight", read[place]);
    }
    Ok(())
}

/// The value of [`crate::embedding()`], and its gradient. The indices are of any shape.
pub(crate) fn embedding([weight, indices]: [Tensor; 2]) -> Result<(Tensor, impl Backward)> {
    let (rows, width) = weight.dims2()?;
    let y = with_float!("embedding", weight.dtype(), T => {
        let [weight_read, indices_read] = [&weight, &indices].map(Reading::new);
        let (weights, places) = (weight_read.slice::<T>()?, indices_read.slice::<u32>()?);
        let per_task = (NUMBERS_PER_TASK / width).max(1);
        let write = |y: &mut [MaybeUninit<T>]| {
            let tasks = y.par_chunks_mut(per_task * width).zip(places.par_chunks(per_task));
            tasks.for_each(|(y, indices)| {
                for (y, &index) in y.chunks_exact_mut(width).zip(indices) {
                    copy(&weights[index as usize * width..][..width], y);
                }
            });
        };
        // SAFETY: there is a row for each index, and each is written.
        tensor(unsafe { vec_written(places.len() * width, write) }, shape_of_rows(&indices, width))
    })?;
    let weight = weight.shape().clone();
    let gradients = move |dy: &Tensor| {
        with_float!("embedding", dy.dtype(), T => {
            let [indices_read, dy_read] = [&indices, dy].map(Reading::new);
            let dys = dy_read.slice::<T>()?;
            let places = Places::new(indices_read.slice::<u32>()?, rows);
            let mut dw = vec![0.0; rows * width];
            let tasks = (dys.len() / NUMBERS_PER_TASK).max(1);
            dw.par_chunks_mut(width).with_min_len(rows.div_ceil(tasks)).enumerate().for_each(|(row, dw)| {
                for &place in places.of(row) {
                    add(&dys[place as usize * width..][..width], dw);
                }
            });
            Ok(vec![Some(tensor::<T>(dw, &weight)?), None])
        })
    };
    Ok((y, gradients))
}

simd! {
    fn add<T: Float>(x: &[T], sum: &mut [T]) {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }
}

/// Where each row's index stands: a counting sort.
struct Places {
    /// The places of one row after the other.
    places: Vec<u32>,
    /// Where each row's places end.
    ends: Vec<u32>,
}

impl Places {
    fn new(indices: &[u32], rows: usize) -> Self {
        let mut ends = vec![0u32; rows];
        indices.iter().for_each(|&index| ends[index as usize] += 1);
        let mut start = 0;
        for end in &mut ends {
            let count = *end;
            *end = start;
            start += count;
        }
        let mut places = vec![0; indices.len()];
        for (place, &index) in (0..).zip(indices) {
            let end = &mut ends[index as usize];
            places[*end as usize] = place;
            *end += 1;
        }
        Self { places, ends }
    }

    fn of(&self, row: usize) -> &[u32] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.places[start as usize..self.ends[row] as usize]
    }
}
