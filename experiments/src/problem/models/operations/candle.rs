//! What candle has no operation for, or none that can be trained through, made of those that it differentiates rightly.

use candle_core::{D, Result, Tensor};
use ops::{BatchNormOutput, DropoutMasks, Heads};

pub(super) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
    let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
    if relu { y.relu() } else { Ok(y) }
}

/// `candle_nn::BatchNorm` keeps its statistics to itself.
pub(super) fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<BatchNormOutput> {
    // In two steps, because candle is quick at sums over the last dimension only.
    let channel_mean = |x: &Tensor| x.flatten_from(2)?.mean(2)?.mean(0);
    let mean = channel_mean(x)?;
    let centred = x.broadcast_sub(&mean.reshape((1, (), 1, 1))?)?;
    let variance = channel_mean(&centred.sqr()?)?;
    let scale = (weight / (&variance + eps)?.sqrt()?)?;
    let output = scale_shift(&centred, &scale, bias, relu)?;
    Ok(BatchNormOutput { output, mean: mean.detach(), variance: variance.detach() })
}

/// The gradient of candle's own max pooling is a quarter of the right one.
pub(super) fn max_pool2(x: &Tensor) -> Result<Tensor> {
    let (n, c, height, width) = x.dims4()?;
    let (height, width) = (height / 2, width / 2);
    let windows = x.narrow(2, 0, 2 * height)?.narrow(3, 0, 2 * width)?.contiguous()?;
    let windows = windows.reshape((n, c, height, 2, width, 2))?;
    let larger = |x: &Tensor, dim: usize| -> Result<Tensor> {
        x.narrow(dim, 0, 1)?.squeeze(dim)?.maximum(&x.narrow(dim, 1, 1)?.squeeze(dim)?)
    };
    larger(&larger(&windows, 5)?, 3)
}

pub(super) fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    // Elements 0, stride, 2 stride, .. along `dim`.
    let every = |x: &Tensor, dim: usize| -> Result<Tensor> {
        let len = x.dim(dim)?;
        let x = x.pad_with_zeros(dim, 0, len.next_multiple_of(stride) - len)?;
        let mut sizes = x.dims().to_vec();
        sizes.splice(dim..=dim, [len.div_ceil(stride), stride]);
        x.reshape(sizes)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
    };
    let new = channels - x.dim(1)?;
    every(&every(x, 2)?, 3)?.pad_with_zeros(1, new / 2, new - new / 2)
}

pub(super) fn dropout(x: &Tensor, masks: &DropoutMasks) -> Result<Tensor> {
    let (mut stays, scale) = (masks.mask(0), masks.scale() as f32);
    let factors: Vec<f32> = (0..x.elem_count()).map(|_| if stays() { scale } else { 0.0 }).collect();
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}

pub(super) fn causal_attention(qkv: &Tensor, heads: Heads, masks: Option<DropoutMasks>) -> Result<Tensor> {
    let (rows, columns) = qkv.dims2()?;
    let Heads { heads, context } = heads;
    let (n, width) = (rows / context, columns / 3);
    let parts = qkv.reshape((n, context, 3, heads, width / heads))?;
    let part = |i| parts.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, v): (Tensor, Tensor, Tensor) = (part(0)?, part(1)?, part(2)?);
    let logits = (q.matmul(&k.t()?)? * (1.0 / ((width / heads) as f64).sqrt()))?;
    let is_future = |i: usize| i % context > i / context;
    let future = (0..context * context).map(|i| if is_future(i) { f32::NEG_INFINITY } else { 0.0 });
    let future = Tensor::from_vec(future.collect(), (context, context), qkv.device())?.to_dtype(qkv.dtype())?;
    // `softmax_last_dim` has no backward pass.
    let mut probabilities = candle_nn::ops::softmax(&logits.broadcast_add(&future)?, D::Minus1)?;
    if let Some(masks) = masks {
        let mut factors = vec![0f32; probabilities.elem_count()];
        for (index, mask) in factors.chunks_exact_mut(context * context).enumerate() {
            let mut stays = masks.mask(index);
            for (row, factors) in mask.chunks_exact_mut(context).enumerate() {
                factors[..=row].fill_with(|| if stays() { masks.scale() as f32 } else { 0.0 });
            }
        }
        let factors = Tensor::from_vec(factors, probabilities.shape(), qkv.device())?;
        probabilities = (&probabilities * factors.to_dtype(qkv.dtype())?)?;
    }
    probabilities.matmul(&v)?.transpose(1, 2)?.reshape((rows, width))
}
