//! The loss of classifiers.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::error::fail,
    side::Side,
};
use candle_core::{DType, Result, Tensor};

/// The loss of classifiers, a scalar: the cross-entropy in nats between the softmax of the `logits` (n, classes) and the `labels`
/// (n, u32), the mean over n:
///
/// `-mean over i of sum over k of t[i, k] log(exp(logits[i, k]) / sum over j of exp(logits[i, j]))`.
///
/// The target `t[i, k]` is 1 for `k = labels[i]` and else 0. Smoothed (Szegedy et al. 2016, arXiv:1512.00567) it is
/// `(1 - label_smoothing) t[i, k] + label_smoothing / classes`, as in PyTorch; 0 is no smoothing.
///
/// The maximum of a row is subtracted first, so that no exponential overflows. NaN gives NaN.
///
/// # Errors
/// When the shapes do not fit each other, there are no rows, the labels are not u32, a label is not below `classes`, or
/// `label_smoothing` is not in 0..=1. Labels on a GPU are not looked at: one that is too large makes the loss and the row's gradient NaN.
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
    let inputs = [logits, labels];
    match Side::of(logits) {
        Side::Device => {
            let (loss, backward) = device::cross_entropy::cross_entropy(detached_contiguous(inputs)?, label_smoothing)?;
            differentiable("cross_entropy", &inputs, loss, backward)
        }
        Side::Cpu => {
            let (loss, backward) = cpu::cross_entropy::cross_entropy(detached_contiguous(inputs)?, label_smoothing)?;
            differentiable("cross_entropy", &inputs, loss, backward)
        }
        Side::CpuInF32 => cross_entropy(&in_f32(logits)?, labels, label_smoothing)?.to_dtype(logits.dtype()),
        Side::Candle => reference::cross_entropy(logits, labels, label_smoothing),
    }
}
