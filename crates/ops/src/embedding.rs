//! Rows of a table by their indices.

use crate::device;
use crate::host::{Float, Reading, fail, gradient, is_half, is_ours, slice, wide, with_float};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
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
    let shape = [indices.dims(), &[width]].concat();
    let flat = indices.flatten_all()?;
    let y = match is_ours(weight) {
        _ if device::runs(weight) && flat.elem_count() > 0 => device::embedding(weight, &flat)?,
        true => weight.contiguous()?.apply_op2(&flat, Embedding)?,
        false if is_half(weight) => {
            wide(weight)?.contiguous()?.apply_op2(&flat, Embedding)?.to_dtype(weight.dtype())?
        }
        false => weight.contiguous()?.index_select(&flat, 0)?,
    };
    y.reshape(shape)
}

/// Numbers that are worth a task.
const NUMBERS: usize = 1 << 16;

struct Embedding;

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        wl: &Layout,
        indices: &CpuStorage,
        il: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = wl.shape().dims2()?;
        with_float!(self.name(), weight.dtype(), T => {
            let (weight, indices) = (slice::<T>(weight, wl)?, slice::<u32>(indices, il)?);
            let mut y = Box::new_uninit_slice(indices.len() * width);
            let rows = (NUMBERS / width).max(1);
            let tasks = y.par_chunks_mut(rows * width).zip(indices.par_chunks(rows));
            tasks.for_each(|(y, indices)| {
                for (y, &index) in y.chunks_exact_mut(width).zip(indices) {
                    y.copy_from_slice(uninit(&weight[index as usize * width..][..width]));
                }
            });
            // SAFETY: there is a row for each index, and each was written.
            let y = unsafe { y.assume_init() }.into_vec();
            Ok((T::to_cpu_storage_owned(y), (indices.len(), width).into()))
        })
    }

    fn bwd(
        &self,
        weight: &Tensor,
        indices: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, width) = weight.dims2()?;
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let (indices_read, dy_read) = (Reading::new(indices), Reading::new(&dy));
            let (indices, dys) = (indices_read.slice::<u32>()?, dy_read.slice::<T>()?);
            let places = Places::new(indices, rows);
            let mut dw = vec![0.0; rows * width];
            let tasks = (dys.len() / NUMBERS).max(1);
            dw.par_chunks_mut(width).with_min_len(rows.div_ceil(tasks)).enumerate().for_each(|(row, dw)| {
                for &place in places.of(row) {
                    add(&dys[place as usize * width..][..width], dw);
                }
            });
            Ok((gradient(weight, dw)?, None))
        })
    }
}

/// The same values, as ones that may not have been written.
fn uninit<T>(values: &[T]) -> &[MaybeUninit<T>] {
    // SAFETY: MaybeUninit<T> has T's layout, and every T is one.
    unsafe { &*(std::ptr::from_ref(values) as *const [MaybeUninit<T>]) }
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
