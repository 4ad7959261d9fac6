//! Candle's tensors on the CPU: which the loops compute on, how they read and make them.

use crate::{cpu::number::with_float, shape::error::fail};
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, StorageRef, Tensor, WithDType};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Whether the loops for f32 and f64 on the CPU compute on this tensor.
pub(crate) fn cpu_supports(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && (tensor.dtype() == f32::DTYPE || tensor.dtype() == f64::DTYPE)
}

/// Whether the loops for f32 alone compute on this tensor.
pub(crate) fn cpu_supports_f32(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == f32::DTYPE
}

/// Whether it is on the CPU, in bf16 or f16.
pub(crate) fn is_half_on_cpu(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && matches!(tensor.dtype(), DType::BF16 | DType::F16)
}

/// The tensor in f32.
pub(crate) fn in_f32(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::F32)
}

/// The elements of a contiguous part of `storage`.
pub(crate) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => fail!("a tensor of shape {:?} is not contiguous", layout.shape()),
    }
}

/// A tensor on the CPU that is being read.
pub(crate) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(crate) fn slice<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => slice(storage, self.layout),
            _ => fail!("a tensor of shape {:?} is not on the CPU", self.layout.shape()),
        }
    }
}

/// A tensor of these values.
pub(crate) fn tensor<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// The gradient by `input`, if there is one.
pub(crate) fn gradient<T: WithDType>(values: Option<Vec<T>>, input: &Tensor) -> Result<Option<Tensor>> {
    values.map(|values| tensor(values, input.shape())).transpose()
}

/// Elements that a task of [`map`] takes.
const ELEMENTS_PER_TASK: usize = 1 << 14;

/// A tensor of the shape of `tensors`, which have one, are contiguous and of the type T: `write` gets the elements of some places of
/// each, and writes the new ones.
///
/// # Safety
/// `write` writes all elements that it gets.
pub(crate) unsafe fn map<T: WithDType, const N: usize>(
    tensors: [&Tensor; N],
    write: impl Fn([&[T]; N], &mut [MaybeUninit<T>]) + Sync,
) -> Result<Tensor> {
    let readings = tensors.map(Reading::new);
    let mut slices: [&[T]; N] = [&[]; N];
    for (slice, reading) in slices.iter_mut().zip(&readings) {
        *slice = reading.slice()?;
    }
    let chunks = |all: &mut [MaybeUninit<T>]| {
        all.par_chunks_mut(ELEMENTS_PER_TASK).enumerate().for_each(|(chunk, new)| {
            let start = chunk * ELEMENTS_PER_TASK;
            write(slices.map(|slice| &slice[start..start + new.len()]), new);
        });
    };
    // SAFETY: the chunks are all, and the caller promises that each is written.
    tensor(unsafe { vec_written(tensors[0].elem_count(), chunks) }, tensors[0].shape())
}

/// `a + b`, of one shape.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !cpu_supports(a) || !a.is_contiguous() || !b.is_contiguous() || a.shape() != b.shape() {
        return a + b;
    }
    with_float!("sum", a.dtype(), T => {
        // SAFETY: there are as many elements of each.
        unsafe {
            map([a, b], |[a, b], sums| {
                sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (&a, &b)): (&mut MaybeUninit<T>, (&T, &T))| {
                    sum.write(a + b);
                });
            })
        }
    })
}

/// A vector of `len` values that `write` has written.
///
/// # Safety
/// `write` writes all of them.
pub(crate) unsafe fn vec_written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller promises that as many were written.
    unsafe { values.set_len(len) };
    values
}

/// Copies values to a place where nothing was written yet.
pub(crate) fn copy<T: Copy>(from: &[T], to: &mut [MaybeUninit<T>]) {
    assert_eq!(from.len(), to.len());
    for (to, &from) in to.iter_mut().zip(from) {
        to.write(from);
    }
}

/// The elements of a slice that was written.
///
/// # Safety
/// All elements were.
pub(crate) unsafe fn written<T>(slice: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: MaybeUninit<T> has T's layout, and the caller promises that each is a T.
    unsafe { &mut *(std::ptr::from_mut(slice) as *mut [T]) }
}
