//! The loss of classifiers.

use crate::{
    cpu::tensor::{Float, Reading, fail, is_half, is_ours, tensor, vec_written, wide, with_float, written},
    cpu::vector::{max, sum},
    device,
    graph::{differentiable, plain},
};
use candle_core::{D, DType, Result, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

const NAME: &str = "cross_entropy";

/// The cross-entropy in nats between the softmax of `logits` (n, classes) and the `labels` (n, u32), the mean over n:
///
/// `-mean over i of sum over k of t[i, k] log(exp(logits[i, k]) / sum over j of exp(logits[i, j]))`,
///
/// a scalar. The target `t[i, k]` is 1 for `k = labels[i]` and else 0, and smoothed (Szegedy et al. 2016, arXiv:1512.00567) it is
/// `(1 - label_smoothing) t[i, k] + label_smoothing / classes`, as in PyTorch; 0 is no smoothing. The maximum of a row is
/// subtracted first, so that no exponential overflows; NaN gives NaN. Each row is read once, and its maximum and sum are kept for
/// the gradient.
///
/// # Errors
/// When the shapes do not fit each other, there are no rows, the labels are not u32, a label is not below `classes` (on
/// CUDA, where the host cannot look at it without waiting, that makes the loss and the row's gradient NaN), or `label_smoothing` is not
/// in 0..=1.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let (&[rows, classes], &[label_count]) = (logits.dims(), labels.dims()) else {
        fail!(
            "cross_entropy: logits {:?} and labels {:?} must be (n, classes) and (n)",
            logits.shape(),
            labels.shape()
        );
    };
    if rows != label_count || rows == 0 || classes == 0 {
        fail!("cross_entropy: logits [{rows}, {classes}] and labels [{label_count}] must have as many rows, and some");
    }
    if labels.dtype() != DType::U32 {
        fail!("cross_entropy: the labels are {:?} and must be U32", labels.dtype());
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        fail!("cross_entropy: label_smoothing is {label_smoothing} and must be at least 0 and at most 1");
    }
    if device::runs(logits) {
        return device::cross_entropy(logits, labels, label_smoothing);
    }
    if is_half(logits) {
        return cross_entropy(&wide(logits)?, labels, label_smoothing)?.to_dtype(logits.dtype());
    }
    if !is_ours(logits) {
        return composed(logits, labels, label_smoothing);
    }
    ours(logits, labels, label_smoothing)
}

/// The same by candle's operations, for other devices and dtypes.
fn composed(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let logarithms = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let loss = candle_nn::loss::nll(&logarithms, labels)?;
    if label_smoothing == 0.0 {
        return Ok(loss);
    }
    (loss * (1.0 - label_smoothing))? - (logarithms.mean_all()? * label_smoothing)?
}

/// Rows that a task takes.
const ROWS: usize = 64;

fn ours(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (inputs, (rows, classes)) = ([logits, labels], logits.dims2()?);
    let [logits, labels] = plain(inputs)?;
    // Of each row the maximum and the sum of the exponentials of what is below it.
    let mut kept = vec![[0.0; 2]; rows];
    let loss = with_float!(NAME, logits.dtype(), T => {
        let [logits_read, labels_read] = [&logits, &labels].map(Reading::new);
        let (xs, labels) = (logits_read.slice::<T>()?, labels_read.slice::<u32>()?);
        if let Some(row) = labels.iter().position(|&label| label as usize >= classes) {
            fail!("cross_entropy: the label {} of row {row} is not below the {classes} classes", labels[row]);
        }
        let mut losses = vec![0.0; rows];
        let tasks = xs.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS));
        let results = losses.par_chunks_mut(ROWS).zip(kept.par_chunks_mut(ROWS));
        tasks.zip(results).for_each(|((x, labels), (losses, kept))| forward(x, labels, smoothing, losses, kept));
        tensor(vec![<T as Float>::narrow(losses.iter().sum::<f64>() / rows as f64)], ())
    })?;
    differentiable(NAME, &inputs, loss, move |dy| {
        with_float!(NAME, dy.dtype(), T => {
            let scale = dy.to_scalar::<T>()?.wide() / rows as f64;
            let [logits_read, labels_read] = [&logits, &labels].map(Reading::new);
            let (xs, labels) = (logits_read.slice::<T>()?, labels_read.slice::<u32>()?);
            let write = |dx: &mut [MaybeUninit<T>]| {
                let tasks = xs.par_chunks(ROWS * classes).zip(labels.par_chunks(ROWS)).zip(kept.par_chunks(ROWS));
                dx.par_chunks_mut(ROWS * classes).zip(tasks).for_each(|(dx, ((x, labels), kept))| {
                    backward(x, labels, smoothing, scale, kept, dx);
                });
            };
            // SAFETY: as many elements are written as there are logits.
            let dx = tensor(unsafe { vec_written(xs.len(), write) }, logits.shape())?;
            Ok(vec![Some(dx), None])
        })
    })
}

/// With the maximum `m` and the sum `s` of `exp(x - m)`, the loss is `log s - (1 - smoothing) (x_label - m) - smoothing mean(x - m)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward<T: Float>(
    logits: &[T],
    labels: &[u32],
    smoothing: f64,
    losses: &mut [f64],
    maxima_and_sums: &mut [[f64; 2]],
) {
    let classes = logits.len() / labels.len();
    let rows = logits.chunks_exact(classes).zip(labels);
    for ((x, &label), (loss, kept)) in rows.zip(losses.iter_mut().zip(maxima_and_sums)) {
        // What is not a number makes its exponential, and so the sum, not a number.
        let maximum = max(x);
        let total = sum(x, |x| (x - maximum).exponential()).wide();
        let mut target = (x[label as usize] - maximum).wide();
        // The mean may be -infinity, whose product with 0 is no number.
        if smoothing != 0.0 {
            let mean = sum(x, |x| x - maximum).wide() / classes as f64;
            target = (1.0 - smoothing) * target + smoothing * mean;
        }
        *loss = total.ln() - target;
        *kept = [maximum.wide(), total];
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward<T: Float>(
    logits: &[T],
    labels: &[u32],
    smoothing: f64,
    scale: f64,
    maxima_and_sums: &[[f64; 2]],
    dx: &mut [MaybeUninit<T>],
) {
    let classes = logits.len() / labels.len();
    let everywhere = T::narrow(smoothing / classes as f64 * scale);
    let at_label = T::narrow((1.0 - smoothing) * scale);
    let rows = logits.chunks_exact(classes).zip(labels).zip(maxima_and_sums);
    for (((x, &label), &[maximum, total]), dx) in rows.zip(dx.chunks_exact_mut(classes)) {
        let (maximum, factor) = (T::narrow(maximum), T::narrow(scale / total));
        for (dx, &x) in dx.iter_mut().zip(x) {
            dx.write((x - maximum).exponential() * factor - everywhere);
        }
        // SAFETY: all were just written.
        let dx = unsafe { written(dx) };
        dx[label as usize] -= at_label;
    }
}
