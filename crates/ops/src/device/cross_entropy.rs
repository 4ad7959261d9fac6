//! The loss of classifiers.

use super::{
    launch::{Launch, RowThreads, args, real, size},
    run::{empty, empty_like},
};
use crate::shape::gradients::Backward;
use candle_core::{Result, Tensor};

args!("cross_entropy", Losses { rows: u64, smoothing: f64, classes: u32, per_row: u32 });

/// The value of [`crate::cross_entropy()`], and its gradient.
pub(crate) fn cross_entropy([logits, labels]: [Tensor; 2], smoothing: f64) -> Result<(Tensor, impl Backward)> {
    let (rows, classes) = logits.dims2()?;
    let (dtype, device, shared) = (logits.dtype(), logits.device(), RowThreads::new(rows, classes));
    let classes = size("cross_entropy", "classes", classes)?;
    let args = Losses { rows: rows as u64, smoothing, classes, per_row: shared.per_row };
    let losses = empty(rows, real(dtype), device)?;
    let kept = empty((rows, 2), real(dtype), device)?;
    let loss = empty((), dtype, device)?;
    let (read, written) = ([Some(&logits), Some(&labels)], [Some(&losses), Some(&kept)]);
    let launch = Launch { name: "cross_entropy", dtype, args, inputs: &read, outputs: &written };
    // SAFETY: there is a row of `classes` logits for each label, a loss and two kept numbers of it; all outputs are new.
    unsafe { launch.run(shared.blocks)? };
    let mean = Launch { name: "cross_entropy_mean", dtype, args, inputs: &[Some(&losses)], outputs: &[Some(&loss)] };
    // SAFETY: there are as many losses as rows, and one mean, which is new.
    unsafe { mean.run(1)? };
    let backward = move |dy: &Tensor| {
        let dx = empty_like(&logits)?;
        let inputs = [Some(&logits), Some(&labels), Some(&kept), Some(dy)];
        let launch = Launch { name: "cross_entropy_backward", dtype, args, inputs: &inputs, outputs: &[Some(&dx)] };
        // SAFETY: as before; the loss has one gradient, and dx, which is new, the logits' shape.
        unsafe { launch.run(shared.blocks)? };
        Ok(vec![Some(dx), None])
    };
    Ok((loss, backward))
}
