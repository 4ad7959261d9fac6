//! Rectifiers.

use crate::device;
use crate::host::{Float, Reading, fail, is_ours, slice, with_float};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements that a task works on.
const CHUNK: usize = 16_384;

/// `y = x`, and 0 where that is negative; NaN stays NaN. The gradient at 0 is 0, as in PyTorch (in candle it is 1).
///
/// # Errors
/// When candle fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if device::runs(x) {
        return device::relu(x);
    }
    if is_ours(x) { x.contiguous()?.apply_op1(Relu) } else { x.relu() }
}

/// `relu(a + b)` in one pass, for two tensors of one shape: the end of a residual block.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        let [a, b] = [a, b].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("add_relu: {a} and {b} must have the same shape and dtype");
    }
    if device::runs(a) {
        return device::add_relu(a, b);
    }
    if is_ours(a) { a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu) } else { (a + b)?.relu() }
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_float!(self.name(), x.dtype(), T => {
            let x = slice::<T>(x, layout)?;
            let mut y = Box::new_uninit_slice(x.len());
            y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| rectify(x, y));
            // SAFETY: each element is written from x's.
            let y = unsafe { y.assume_init() }.into_vec();
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        gradient(self.name(), y, dy).map(Some)
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        with_float!(self.name(), a.dtype(), T => {
            let (a, b) = (slice::<T>(a, al)?, slice::<T>(b, bl)?);
            let mut y = Box::new_uninit_slice(a.len());
            let chunks = y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
            chunks.for_each(|((y, a), b)| rectify_sum(a, b, y));
            // SAFETY: each element is written from those of a and b, which have the same shape.
            let y = unsafe { y.assume_init() }.into_vec();
            Ok((T::to_cpu_storage_owned(y), al.shape().clone()))
        })
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient(self.name(), y, dy)?;
        let by = |argument: &Tensor| argument.track_op().then(|| gradient.clone());
        Ok((by(a), by(b)))
    }
}

/// `dy`, and 0 where `y` is 0.
fn gradient(op: &str, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dy = dy.contiguous()?;
    with_float!(op, dy.dtype(), T => {
        let (y_read, dy_read) = (Reading::new(y), Reading::new(&dy));
        let (ys, dys) = (y_read.slice::<T>()?, dy_read.slice::<T>()?);
        let mut dx = Box::new_uninit_slice(ys.len());
        let chunks = dx.par_chunks_mut(CHUNK).zip(ys.par_chunks(CHUNK)).zip(dys.par_chunks(CHUNK));
        chunks.for_each(|((dx, y), dy)| mask(y, dy, dx));
        // SAFETY: each element is written from those of y and dy, which have the same shape.
        let dx = unsafe { dx.assume_init() }.into_vec();
        Tensor::from_vec(dx, y.shape(), y.device())
    })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rectify<T: Float>(x: &[T], y: &mut [MaybeUninit<T>]) {
    for (y, x) in y.iter_mut().zip(x) {
        y.write(x.rectified());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rectify_sum<T: Float>(a: &[T], b: &[T], y: &mut [MaybeUninit<T>]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        y.write((a + b).rectified());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn mask<T: Float>(y: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
    for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
        dx.write(if y <= T::zero() { T::zero() } else { dy });
    }
}
