//! Passes over all numbers of stacks of matrices: on the CPU one pass each, shared among threads.

use crate::error::Result;
use candle_core::{DType, Device, Storage, Tensor, WithDType};
use rayon::prelude::*;

/// Numbers that a thread takes at a time: sums are of such parts, so that their bits do not depend on the threads.
const PART: usize = 16 * 1024;

/// Calls `f` with the numbers of a tensor on the CPU, row after row.
pub(crate) fn with_values<T: WithDType, R>(
    tensor: &Tensor,
    f: impl FnOnce(&[T]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a tensor on {:?}, not on the CPU", tensor.device())
    };
    let values = T::cpu_storage_as_slice(storage)?;
    f(&values[layout.start_offset()..][..layout.shape().elem_count()])
}

/// A number of a type that is f32 or f64.
pub(crate) fn number<T: WithDType>(value: f64) -> T {
    T::from_f64(value)
}

/// `a x + b y`, of tensors of one shape, type and device. On the CPU 0 where an `f32` would be below its smallest normal number: a mean
/// of zeros decays to there, and processors are slow with such numbers.
pub fn weighted_sum(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok(match x.dtype() {
        DType::F32 if is_on_cpu(x, y) => map2(x, y, |x: f32, y| {
            let sum = a as f32 * x + b as f32 * y;
            if sum.abs() < f32::MIN_POSITIVE { 0.0 } else { sum }
        }),
        DType::F64 if is_on_cpu(x, y) => map2(x, y, |x: f64, y| a * x + b * y),
        _ => (x * a)? + (y * b)?,
    }?)
}

fn is_on_cpu(x: &Tensor, y: &Tensor) -> bool {
    x.device().is_cpu() && x.dims() == y.dims() && x.dtype() == y.dtype()
}

/// `f` of each pair of numbers.
fn map2<T: WithDType>(x: &Tensor, y: &Tensor, f: impl Fn(T, T) -> T + Sync) -> candle_core::Result<Tensor> {
    let mut out = vec![number::<T>(0.0); x.elem_count()];
    with_values(x, |x: &[T]| {
        with_values(y, |y: &[T]| {
            out.par_chunks_mut(PART).zip(x.par_chunks(PART)).zip(y.par_chunks(PART)).for_each(|((out, x), y)| {
                for i in 0..out.len().min(x.len()).min(y.len()) {
                    out[i] = f(x[i], y[i]);
                }
            });
            Ok(())
        })
    })?;
    Tensor::from_vec(out, x.dims(), &Device::Cpu)
}

/// The Frobenius norm of a matrix on the CPU.
pub(crate) fn norm<T: WithDType>(values: &[T]) -> f64 {
    let squares = |part: &[T]| {
        let mut lanes = [0.0; 8];
        for block in part.chunks(lanes.len()) {
            for i in 0..block.len() {
                let x = block[i].to_f64();
                lanes[i] += x * x;
            }
        }
        lanes.iter().sum::<f64>()
    };
    let parts: Vec<f64> = values.par_chunks(PART).map(squares).collect();
    parts.iter().sum::<f64>().sqrt()
}

/// Each matrix of a stack `[n, rows, columns]` over `factor` times its Frobenius norm plus `eps`, by candle's operations.
pub(crate) fn over_norm(stack: &Tensor, factor: f64, eps: f64) -> candle_core::Result<Tensor> {
    let norm = stack.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
    stack.broadcast_div(&norm.affine(factor, eps)?)
}
