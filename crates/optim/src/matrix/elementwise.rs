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

/// `a x + b y`, of tensors of one shape, type and device.
pub fn weighted_sum(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok(match x.dtype() {
        DType::F32 if is_on_cpu(x, y) => map2(x, y, |x: f32, y| a as f32 * x + b as f32 * y),
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

/// Each matrix of a stack `[n, rows, columns]` over `factor` times its Frobenius norm plus `eps`.
pub(crate) fn over_norm(stack: &Tensor, factor: f64, eps: f64) -> Result<Tensor> {
    let scale = |norm: f64| 1.0 / (factor * norm + eps);
    Ok(match stack.dtype() {
        DType::F32 if stack.device().is_cpu() => on_cpu::<f32>(stack, |x| f64::from(x), scale),
        DType::F64 if stack.device().is_cpu() => on_cpu::<f64>(stack, |x| x, scale),
        dtype => {
            let norm = stack.to_dtype(DType::F32)?.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
            stack.broadcast_div(&norm.affine(factor, eps)?.to_dtype(dtype)?)
        }
    }?)
}

fn on_cpu<T: WithDType>(
    stack: &Tensor,
    wide: impl Fn(T) -> f64 + Sync,
    scale: impl Fn(f64) -> f64 + Sync,
) -> candle_core::Result<Tensor> {
    let (count, rows, columns) = stack.dims3()?;
    let len = rows * columns;
    let mut out = vec![number::<T>(0.0); count * len];
    if !out.is_empty() {
        with_values(stack, |values: &[T]| {
            let squares = |part: &[T]| {
                let mut lanes = [0.0; 8];
                for block in part.chunks(lanes.len()) {
                    for i in 0..block.len() {
                        let x = wide(block[i]);
                        lanes[i] += x * x;
                    }
                }
                lanes.iter().sum::<f64>()
            };
            let sums: Vec<Vec<f64>> =
                values.par_chunks(len).map(|matrix| matrix.par_chunks(PART).map(squares).collect()).collect();
            let scales: Vec<f64> = sums.iter().map(|sums| scale(sums.iter().sum::<f64>().sqrt())).collect();
            out.par_chunks_mut(len).zip(values.par_chunks(len)).zip(scales).for_each(|((out, values), scale)| {
                out.par_chunks_mut(PART).zip(values.par_chunks(PART)).for_each(|(out, values)| {
                    for i in 0..out.len().min(values.len()) {
                        out[i] = number(wide(values[i]) * scale);
                    }
                });
            });
            Ok(())
        })?;
    }
    Tensor::from_vec(out, stack.dims(), &Device::Cpu)
}
