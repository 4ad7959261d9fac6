//! The loss of classifiers.

use crate::host::{Float, Reading, fail, is_ours, slice, with_float};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use rayon::prelude::*;

/// The cross-entropy in nats between the softmax of `logits` (n, classes) and the `labels` (n, u32), the mean over n:
///
/// `-mean over i of log(exp(logits[i, labels[i]]) / sum over k of exp(logits[i, k]))`,
///
/// a scalar. The maximum of a row is subtracted first, so that no exponential overflows; NaN gives NaN.
///
/// # Errors
/// When the shapes do not fit each other, there are no rows, the labels are not u32, or a label is not below `classes`.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
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
    if !is_ours(logits) {
        return candle_nn::loss::cross_entropy(logits, labels);
    }
    logits.contiguous()?.apply_op2(&labels.contiguous()?, CrossEntropy)
}

struct CrossEntropy;

/// The maximum of a row and the sum of the exponentials of what is below it; NaN if there is one.
fn maximum_and_sum<T: Float>(row: &[T]) -> (f64, f64) {
    let maximum = row.iter().fold(f64::NEG_INFINITY, |maximum, x| maximum.max(x.wide()));
    (maximum, row.iter().map(|x| (x.wide() - maximum).exp()).sum())
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        xl: &Layout,
        labels: &CpuStorage,
        ll: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = xl.shape().dims2()?;
        with_float!(self.name(), logits.dtype(), T => {
            let (logits, labels) = (slice::<T>(logits, xl)?, slice::<u32>(labels, ll)?);
            if let Some(row) = labels.iter().position(|&label| label as usize >= classes) {
                fail!("cross_entropy: the label {} of row {row} is not below the {classes} classes", labels[row]);
            }
            let losses: Vec<f64> = logits
                .par_chunks(classes)
                .zip(labels)
                .map(|(row, &label)| {
                    let (maximum, sum) = maximum_and_sum(row);
                    maximum + sum.ln() - row[label as usize].wide()
                })
                .collect();
            let loss = T::narrow(losses.iter().sum::<f64>() / rows as f64);
            Ok((T::to_cpu_storage_owned(vec![loss]), Shape::from(())))
        })
    }

    fn bwd(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, classes) = logits.dims2()?;
        with_float!(self.name(), logits.dtype(), T => {
            let scale = dy.to_scalar::<T>()?.wide() / rows as f64;
            let (logits_read, labels_read) = (Reading::new(logits), Reading::new(labels));
            let (xs, labels) = (logits_read.slice::<T>()?, labels_read.slice::<u32>()?);
            let mut dx = vec![0.0; xs.len()];
            dx.par_chunks_mut(classes).zip(xs.par_chunks(classes)).zip(labels).for_each(|((dx, x), &label)| {
                let (maximum, sum) = maximum_and_sum(x);
                for (dx, x) in dx.iter_mut().zip(x) {
                    *dx = T::narrow((x.wide() - maximum).exp() / sum * scale);
                }
                dx[label as usize] -= T::narrow(scale);
            });
            Ok((Some(Tensor::from_vec(dx, logits.shape(), logits.device())?), None))
        })
    }
}
