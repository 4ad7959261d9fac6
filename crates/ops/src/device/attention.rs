//! Causal attention of several heads: matrix products, and a softmax up to the diagonal between them.

use super::{
    launch::{Launch, RowThreads, args, size},
    matmul::matmul,
    run::empty_like,
};
use crate::shape::{dropout::DropoutMasks, gradients::Backward, heads::Heads};
use candle_core::{Result, Tensor};

args!(
    "causal_softmax",
    Squares {
        rows: u64,
        scale: f64,
        dropout_scale: f64,
        context: u32,
        per_row: u32,
        key: [u32; 8],
        dropped: u32,
        unused: u32,
    }
);

/// The value of [`crate::causal_attention()`], and its gradient.
pub(crate) fn causal_attention(
    input: Tensor,
    heads: Heads,
    masks: Option<&DropoutMasks>,
) -> Result<(Tensor, impl Backward + use<>)> {
    let ((rows, columns), dtype) = (input.dims2()?, input.dtype());
    let Heads { heads: count, context } = heads;
    let (windows, width) = (rows / context, columns / (3 * count));
    let squares = rows * count;
    let shared = RowThreads::new(squares, context);
    let args = Squares {
        rows: squares as u64,
        scale: 1.0 / (width as f64).sqrt(),
        dropout_scale: masks.map_or(1.0, DropoutMasks::scale),
        context: size("causal_attention", "rows of a window", context)?,
        per_row: shared.per_row,
        key: masks.map_or([0; 8], DropoutMasks::key),
        dropped: masks.map_or(0, DropoutMasks::dropped),
        unused: 0,
    };
    let split = move |qkv: &Tensor| -> Result<Tensor> {
        let parts = qkv.reshape((windows, context, 3, count, width))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
        parts.reshape((3, windows * count, context, width))
    };
    // The heads' columns side by side, and the other way round.
    let join = move |heads: &Tensor| -> Result<Tensor> {
        let heads = heads.reshape((windows, count, context, width))?;
        heads.transpose(1, 2)?.contiguous()?.reshape((rows, count * width))
    };
    let part = move |out: &Tensor| -> Result<Tensor> {
        let heads = out.reshape((windows, context, count, width))?.transpose(1, 2)?.contiguous()?;
        heads.reshape((windows * count, context, width))
    };

    let parts = split(&input)?;
    let (q, k, v) = (parts.get(0)?, parts.get(1)?, parts.get(2)?);
    let logits = matmul(&q, &k.transpose(1, 2)?)?;
    let mut probabilities = empty_like(&logits)?;
    let launch =
        Launch { name: "causal_softmax", dtype, args, inputs: &[Some(&logits)], outputs: &[Some(&probabilities)] };
    // SAFETY: the logits are as many rows of `context` numbers, and the probabilities, which are new, too.
    unsafe { launch.run(shared.blocks)? };
    let mut kept = probabilities.clone();
    if masks.is_some() {
        let marked = empty_like(&logits)?;
        kept = empty_like(&logits)?;
        let (inputs, outputs) = ([Some(&probabilities)], [Some(&marked), Some(&kept)]);
        let launch = Launch { name: "causal_dropout", dtype, args, inputs: &inputs, outputs: &outputs };
        // SAFETY: all have the logits' shape, and the outputs are new.
        unsafe { launch.run(shared.blocks)? };
        probabilities = marked;
    }
    let y = join(&matmul(&kept, &v)?)?;
    let backward = move |dy: &Tensor| {
        let parts = split(&input)?;
        let (q, k, v) = (parts.get(0)?, parts.get(1)?, parts.get(2)?);
        let dy = part(dy)?;
        let dv = matmul(&kept.transpose(1, 2)?, &dy)?;
        let by_kept = matmul(&dy, &v.transpose(1, 2)?)?;
        let by_logits = empty_like(&by_kept)?;
        let inputs = [Some(&probabilities), Some(&by_kept)];
        let name = "causal_softmax_backward";
        let launch = Launch { name, dtype, args, inputs: &inputs, outputs: &[Some(&by_logits)] };
        // SAFETY: all have the logits' shape, and the output is new.
        unsafe { launch.run(shared.blocks)? };
        let (dq, dk) = (matmul(&by_logits, &k)?, matmul(&by_logits.transpose(1, 2)?, &q)?);
        let all = Tensor::stack(&[dq, dk, dv], 0)?.reshape((3, windows, count, context, width))?;
        let all = all.permute((1, 3, 0, 2, 4))?.contiguous()?;
        Ok(vec![Some(all.reshape((rows, columns))?)])
    };
    Ok((y, backward))
}
