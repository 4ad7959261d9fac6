//! Rows of a table by their indices.

use crate::{
    cpu::tensor::{Float, Reading, copy, fail, is_half, is_ours, tensor, vec_written, wide, with_float},
    device,
    graph::{differentiable, plain},
};
use candle_core::{DType, Result, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The rows of `weight` (rows, d) that the `indices` (u32, of any shape) name: the shape of the indices, and d.
///
/// The gradient of a row is the sum over the places that have its index, in their order: the same bits for any number of threads.
///
/// # Errors
/// When `weight` is not (rows, d) with d of at least 1, the indices are not u32, or one is not below the number of rows (those on
/// a GPU are not looked at: such an index gives a row of NaN, and has no gradient).
pub fn embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let &[rows, width] = weight.dims() else { fail!("embedding: weight {:?} must be (rows, d)", weight.shape()) };
    if width == 0 {
        fail!("embedding: weight {:?} must have columns", weight.shape());
    }
    if indices.dtype() != DType::U32 {
        fail!("embedding: the indices are {:?} and must be U32", indices.dtype());
    }
    let indices = indices.contiguous()?;
    if indices.device().is_cpu() && !device::runs(weight) {
        let read = Reading::new(&indices);
        let read = read.slice::<u32>()?;
        if let Some(place) = read.iter().position(|&index| index as usize >= rows) {
            fail!("embedding: the index {} at place {place} is not below the {rows} rows of weight", read[place]);
        }
    }
    match is_ours(weight) {
        _ if device::runs(weight) && indices.elem_count() > 0 => device::embedding(weight, &indices),
        true => ours(weight, &indices),
        false if is_half(weight) => ours(&wide(weight)?, &indices)?.to_dtype(weight.dtype()),
        false => weight.contiguous()?.index_select(&indices.flatten_all()?, 0)?.reshape(shape(&indices, width)),
    }
}

/// That of the rows of the indices.
pub(crate) fn shape(indices: &Tensor, width: usize) -> Vec<usize> {
    [indices.dims(), &[width]].concat()
}

/// Numbers that are worth a task.
const NUMBERS: usize = 1 << 16;

/// `indices` are of any shape.
fn ours(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let inputs = [weight, indices];
    let [weight, indices] = plain(inputs)?;
    let (rows, width) = weight.dims2()?;
    let y = with_float!("embedding", weight.dtype(), T => {
        let [weight_read, indices_read] = [&weight, &indices].map(Reading::new);
        let (weights, indices) = (weight_read.slice::<T>()?, indices_read.slice::<u32>()?);
        let per_task = (NUMBERS / width).max(1);
        let write = |y: &mut [MaybeUninit<T>]| {
            let tasks = y.par_chunks_mut(per_task * width).zip(indices.par_chunks(per_task));
            tasks.for_each(|(y, indices)| {
                for (y, &index) in y.chunks_exact_mut(width).zip(indices) {
                    copy(&weights[index as usize * width..][..width], y);
                }
            });
        };
        // SAFETY: there is a row for each index, and each is written.
        tensor(unsafe { vec_written(indices.len() * width, write) }, shape(inputs[1], width))
    })?;
    let weight = weight.shape().clone();
    differentiable("embedding", &inputs, y, move |dy| {
        with_float!("embedding", dy.dtype(), T => {
            let [indices_read, dy_read] = [&indices, dy].map(Reading::new);
            let dys = dy_read.slice::<T>()?;
            let places = Places::new(indices_read.slice::<u32>()?, rows);
            let mut dw = vec![0.0; rows * width];
            let tasks = (dys.len() / NUMBERS).max(1);
            dw.par_chunks_mut(width).with_min_len(rows.div_ceil(tasks)).enumerate().for_each(|(row, dw)| {
                for &place in places.of(row) {
                    add(&dys[place as usize * width..][..width], dw);
                }
            });
            Ok(vec![Some(tensor::<T>(dw, &weight)?), None])
        })
    })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add<T: Float>(x: &[T], sum: &mut [T]) {
    for (sum, &x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// Where each row's index stands: a counting sort.
struct Places {
    /// Of row after row.
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
