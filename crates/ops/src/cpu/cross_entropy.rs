//! The loss of classifiers: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        simd::simd,
        tensor::{Reading, tensor, vec_written, written},
        vector::{max, sum},
    },
    shape::{error::fail, gradients::Backward},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

const NAME: &str = "cross_entropy";

/// Rows that a task takes.
const ROWS_PER_TASK: usize = 64;

/// The value of [`crate::cross_entropy()`], and its gradient.
pub(crate) fn cross_entropy([logits, labels]: [Tensor; 2], smoothing: f64) -> Result<(Tensor, impl Backward)> {
    let (rows, classes) = logits.dims2()?;
    // Of each row the maximum and the sum of the exponentials of what is below it.
    let mut kept = vec![[0.0; 2]; rows];
    let loss = with_float!(NAME, logits.dtype(), T => {
        let [logits_read, labels_read] = [&logits, &labels].map(Reading::new);
        let (xs, labels) = (logits_read.slice::<T>()?, labels_read.slice::<u32>()?);
        if let Some(row) = labels.iter().position(|&label| label as usize >= classes) {
            fail!("cross_entropy: the label {} of row {row} is not below the {classes} classes", labels[row]);
        }
        let mut losses = vec![0.0; rows];
        let tasks = xs.par_chunks(ROWS_PER_TASK * classes).zip(labels.par_chunks(ROWS_PER_TASK));
        let results = losses.par_chunks_mut(ROWS_PER_TASK).zip(kept.par_chunks_mut(ROWS_PER_TASK));
        tasks.zip(results).for_each(|((x, labels), (losses, kept))| forward(x, labels, smoothing, losses, kept));
        tensor(vec![<T as Float>::narrow(losses.iter().sum::<f64>() / rows as f64)], ())
    })?;
    let gradients = move |dy: &Tensor| {
        with_float!(NAME, dy.dtype(), T => {
            let scale = dy.to_scalar::<T>()?.wide() / rows as f64;
            let [logits_read, labels_read] = [&logits, &labels].map(Reading::new);
            let (xs, labels) = (logits_read.slice::<T>()?, labels_read.slice::<u32>()?);
            let write = |dx: &mut [MaybeUninit<T>]| {
                let tasks = xs.par_chunks(ROWS_PER_TASK * classes).zip(labels.par_chunks(ROWS_PER_TASK)).zip(kept.par_chunks(ROWS_PER_TASK));
                dx.par_chunks_mut(ROWS_PER_TASK * classes).zip(tasks).for_each(|(dx, ((x, labels), kept))| {
                    backward(x, labels, smoothing, scale, kept, dx);
                });
            };
            // SAFETY: as many elements are written as there are logits.
            let dx = tensor(unsafe { vec_written(xs.len(), write) }, logits.shape())?;
            Ok(vec![Some(dx), None])
        })
    };
    Ok((loss, gradients))
}

simd! {
    /// With the maximum `m` and the sum `s` of `exp(x - m)`, the loss is `log s - (1 - smoothing) (x_label - m) - smoothing mean(x - m)`.
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
}
