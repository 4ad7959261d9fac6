//! Layer norm and RMS norm.

use super::{
    launch::{Launch, RowThreads, THREADS, WARP, args, real, size},
    run::{empty, empty_like},
};
use crate::shape::gradients::Backward;
use candle_core::{Result, Tensor};

args!("layer_norm", Norm { rows: u64, eps: f64, width: u32, per_row: u32, parts: u32, rows_per_part: u32 });

/// The most parts that the weight's gradient is summed in.
const MAX_PARTS: usize = 128;

/// The value of [`crate::layer_norm()`] of x and weight, and those of its gradients that are wanted.
pub(crate) fn layer_norm(inputs: [Tensor; 2], eps: f64, wanted: [bool; 2]) -> Result<(Tensor, impl Backward)> {
    norm(["layer_norm", "layer_norm_backward"], inputs, eps, wanted)
}

/// The value of [`crate::rms_norm()`] of x and weight, and those of its gradients that are wanted.
pub(crate) fn rms_norm(inputs: [Tensor; 2], eps: f64, wanted: [bool; 2]) -> Result<(Tensor, impl Backward)> {
    norm(["rms_norm", "rms_norm_backward"], inputs, eps, wanted)
}

fn norm(
    [name, backward]: [&'static str; 2],
    [x, weight]: [Tensor; 2],
    eps: f64,
    wanted: [bool; 2],
) -> Result<(Tensor, impl Backward)> {
    let (dtype, device, width) = (x.dtype(), x.device(), weight.elem_count());
    let rows = x.elem_count() / width;
    let shared = RowThreads::new(rows, width);
    let rows_per_part = rows.div_ceil(MAX_PARTS).max(WARP);
    let parts = rows.div_ceil(rows_per_part);
    let args = Norm {
        rows: rows as u64,
        eps,
        width: size(name, "columns", width)?,
        per_row: shared.per_row,
        parts: parts as u32,
        rows_per_part: size(name, "rows of a part", rows_per_part)?,
    };
    let (y, kept) = (empty_like(&x)?, empty((rows, 2), real(dtype), device)?);
    let (inputs, outputs) = ([Some(&x), Some(&weight)], [Some(&y), Some(&kept)]);
    let launch = Launch { name, dtype, args, inputs: &inputs, outputs: &outputs };
    // SAFETY: x and y are rows of the weight's length, of each of which two numbers are kept; the outputs are new.
    unsafe { launch.run(shared.blocks)? };
    let backward = move |dy: &Tensor| {
        let (x, weight) = (&x, &weight);
        let mut gradients = vec![None, None];
        if wanted[0] {
            let dx = empty_like(x)?;
            let inputs = [Some(x), Some(weight), Some(&kept), Some(dy)];
            let launch = Launch { name: backward, dtype, args, inputs: &inputs, outputs: &[Some(&dx)] };
            // SAFETY: dy and dx have x's shape, and dx is new.
            unsafe { launch.run(shared.blocks)? };
            gradients[0] = Some(dx);
        }
        if wanted[1] {
            let (sums, dw) = (empty((parts, width), real(dtype), x.device())?, empty_like(weight)?);
            let inputs = [Some(x), Some(&kept), Some(dy)];
            let launch = Launch { name: "weight_parts", dtype, args, inputs: &inputs, outputs: &[Some(&sums)] };
            // SAFETY: the parts have all rows, and a sum of each column of each part is in `sums`, which is new.
            unsafe { launch.run(parts * width.div_ceil(WARP))? };
            let launch = Launch { name: "weight_gradient", dtype, args, inputs: &[Some(&sums)], outputs: &[Some(&dw)] };
            // SAFETY: `sums` has as many parts, and dw, which is new, as many columns.
            unsafe { launch.run(width.div_ceil(THREADS))? };
            gradients[1] = Some(dw);
        }
        Ok(gradients)
    };
    Ok((y, backward))
}
