//! The ops composed of candle's own operations, on any device and in any dtype that candle has them for: what the ops compute, in a
//! form that can be read. Tests hold the ops to it in f64, and the ops fall back on it where nothing faster is there.
//!
//! Arguments, conventions and shapes are those of the ops of the same names, and so are the gradients, which are candle's. Shapes
//! that do not fit are candle's errors.

use crate::shape::{
    batch_norm::BatchNormOutput,
    conv2d::{Conv2dOptions, Geometry},
    dropout::DropoutMasks,
    heads::Heads,
    pool2d::{Pool2dOptions, Pooling},
    rows::shape_of_rows,
    windows::Windows,
};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, D, Layout, MetalStorage, Result, Shape, Tensor, backend::BackendStorage,
};
use std::f64::consts::FRAC_1_SQRT_2;

/// [`conv2d`](crate::conv2d()), by candle's convolution where its gradient is right, else as a matrix product with the windows.
///
/// # Errors
/// As the op.
pub fn conv2d(x: &Tensor, weight: &Tensor, options: Conv2dOptions) -> Result<Tensor> {
    let g = Geometry::new(x.shape(), weight.shape(), options)?;
    // candle differentiates a convolution by a transposed one that it gives as many more rows as columns.
    let more = |size: usize, kernel: usize, out: usize| {
        (size + 2 * g.padding).checked_sub((out - 1) * g.stride + (kernel - 1) * g.dilation + 1)
    };
    let reach = |kernel: usize, out: usize| (out - 1) * g.stride + (kernel - 1) * g.dilation + 1;
    let has_gradient = more(g.height, g.kernel_height, g.out_height) == more(g.width, g.kernel_width, g.out_width)
        && reach(g.kernel_height, g.out_height).min(reach(g.kernel_width, g.out_width)) > 2 * g.padding;
    if has_gradient {
        return x.conv2d(weight, options.padding, options.stride, options.dilation, options.groups);
    }
    let kernel = (g.kernel_height, g.kernel_width);
    let columns = Windows { kernel, stride: g.stride, padding: g.padding, dilation: g.dilation }.unfold(x)?;
    let columns = columns.reshape((g.images, g.groups, g.window(), g.out_pixels()))?;
    let weight = weight.reshape((1, g.groups, g.out_channels, g.window()))?;
    weight.broadcast_matmul(&columns)?.reshape(g.output_shape())
}

/// [`batch_norm`](crate::batch_norm()).
///
/// # Errors
/// When candle fails.
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<BatchNormOutput> {
    // In two steps, because candle is quick at sums over the last dimension only.
    let channel_mean = |x: &Tensor| x.flatten_from(2)?.mean(2)?.mean(0);
    let mean = channel_mean(x)?;
    let centered = x.broadcast_sub(&mean.reshape((1, (), 1, 1))?)?;
    let variance = channel_mean(&centered.sqr()?)?;
    let scale = (weight / (&variance + eps)?.sqrt()?)?;
    let output = scale_shift(&centered, &scale, bias, relu)?;
    Ok(BatchNormOutput { output, mean: mean.detach(), variance: variance.detach() })
}

/// [`scale_shift`](crate::scale_shift()); the rectifier's gradient at 0 is 1, as [`relu`]'s.
///
/// # Errors
/// When candle fails.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
    let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
    if relu { y.relu() } else { Ok(y) }
}

/// [`relu`](crate::relu()), whose gradient at 0 is 1 here.
///
/// # Errors
/// When candle fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x.relu()
}

/// [`add_relu`](crate::add_relu()), whose gradient at 0 is 1 here.
///
/// # Errors
/// When candle fails.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a + b)?.relu()
}

/// [`gelu`](crate::gelu()).
///
/// # Errors
/// When candle fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    // candle's own gelu has a gradient of eight digits.
    let distribution = (((x * FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    x * distribution
}

/// [`max_pool2d`](crate::max_pool2d()), but not by candle's `max_pool2d`, whose gradient is right for no window of more than a
/// pixel.
///
/// # Errors
/// As the op.
pub fn max_pool2d(x: &Tensor, pool: Pool2dOptions) -> Result<Tensor> {
    let p = Pooling::new("max_pool2d", x.shape(), pool)?;
    let (n, c, window, out) = (p.images, p.channels, p.pool.kernel.0 * p.pool.kernel.1, p.out_pixels());
    // In the place of a pixel outside the image the nearest inside, which the window has too.
    let pixels = Tensor::new(p.windows().nearest(p.height, p.width), x.device())?;
    let planes = x.flatten_from(2)?.contiguous()?;
    let best = planes.detach().index_select(&pixels, 2)?.reshape((n, c, window, out))?.argmax_keepdim(2)?;
    let pixels = pixels.reshape((1, 1, window, out))?.broadcast_as((n, c, window, out))?.contiguous()?;
    let best = pixels.gather(&best.contiguous()?, 2)?.squeeze(2)?;
    planes.gather(&best.contiguous()?, 2)?.reshape(p.output_shape())
}

/// [`avg_pool2d`](crate::avg_pool2d()).
///
/// # Errors
/// As the op.
pub fn avg_pool2d(x: &Tensor, pool: Pool2dOptions, count_padding: bool) -> Result<Tensor> {
    let p = Pooling::new("avg_pool2d", x.shape(), pool)?;
    let pixels = |rows: usize| p.columns().map(move |columns| rows * columns.len());
    let weights = p.rows().flat_map(|rows| pixels(rows.len())).map(|pixels| p.mean_weight(pixels, count_padding));
    let weights = Tensor::new(weights.collect::<Vec<f64>>(), x.device())?.to_dtype(x.dtype())?;
    p.windows().unfold(x)?.sum(2)?.broadcast_mul(&weights)?.reshape(p.output_shape())
}

/// [`layer_norm`](crate::layer_norm()).
///
/// # Errors
/// When candle fails.
pub fn layer_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    centered.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// [`rms_norm`](crate::rms_norm()).
///
/// # Errors
/// When candle fails.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// [`cross_entropy`](crate::cross_entropy()).
///
/// # Errors
/// When candle fails.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let logarithms = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let loss = candle_nn::loss::nll(&logarithms, labels)?;
    if label_smoothing == 0.0 {
        return Ok(loss);
    }
    (loss * (1.0 - label_smoothing))? - (logarithms.mean_all()? * label_smoothing)?
}

/// [`linear`](crate::linear()), by candle's product.
///
/// # Errors
/// When candle fails.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&weight.contiguous()?, Linear)
}

/// [`embedding`](crate::embedding()).
///
/// # Errors
/// When candle fails.
pub fn embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let shape = shape_of_rows(indices, weight.dim(1)?);
    weight.contiguous()?.index_select(&indices.flatten_all()?, 0)?.reshape(shape)
}

/// [`dropout`](crate::dropout()) by the same masks.
///
/// # Errors
/// When candle fails.
pub fn dropout(x: &Tensor, masks: &DropoutMasks) -> Result<Tensor> {
    let (mut stays, scale) = (masks.mask(0), masks.scale() as f32);
    let factors: Vec<f32> = (0..x.elem_count()).map(|_| if stays() { scale } else { 0.0 }).collect();
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}

/// [`causal_attention`](crate::causal_attention()).
///
/// # Errors
/// As the op.
pub fn causal_attention(qkv: &Tensor, heads: Heads, masks: Option<DropoutMasks>) -> Result<Tensor> {
    let [q, k, v] = split(qkv, heads)?;
    let (n, count, context, d) = q.dims4()?;
    let logits = (q.matmul(&k.t()?)? * (1.0 / (d as f64).sqrt()))?;
    let is_future = |i: usize| i % context > i / context;
    let future = (0..context * context).map(|i| if is_future(i) { f32::NEG_INFINITY } else { 0.0 });
    let future = Tensor::from_vec(future.collect(), (context, context), qkv.device())?.to_dtype(qkv.dtype())?;
    // `softmax_last_dim` has no backward pass.
    let mut probabilities = candle_nn::ops::softmax(&logits.broadcast_add(&future)?, D::Minus1)?;
    if let Some(masks) = masks {
        let mut factors = vec![0f32; n * count * context * context];
        for (index, mask) in factors.chunks_exact_mut(context * context).enumerate() {
            let mut stays = masks.mask(index);
            for (row, factors) in mask.chunks_exact_mut(context).enumerate() {
                factors[..=row].fill_with(|| if stays() { masks.scale() as f32 } else { 0.0 });
            }
        }
        let factors = Tensor::from_vec(factors, (n, count, context, context), qkv.device())?;
        probabilities = (probabilities * factors.to_dtype(qkv.dtype())?)?;
    }
    probabilities.matmul(&v)?.transpose(1, 2)?.reshape((n * context, count * d))
}

/// `q k^T / sqrt(d)` of each head of [`causal_attention`] before masking: (n, heads, context, context).
///
/// # Errors
/// As the op.
pub fn attention_logits(qkv: &Tensor, heads: Heads) -> Result<Tensor> {
    let [q, k, _] = split(qkv, heads)?;
    let d = q.dim(D::Minus1)?;
    q.matmul(&k.t()?)? * (1.0 / (d as f64).sqrt())
}

/// Queries, keys and values, each (n, heads, context, d).
fn split(qkv: &Tensor, heads: Heads) -> Result<[Tensor; 3]> {
    let (rows, columns) = qkv.dims2()?;
    let (width, Heads { heads, context }) = (heads.head_width(rows, columns)?, heads);
    let parts = qkv.reshape((rows / context, context, 3, heads, width))?;
    let part = |i| parts.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    Ok([part(0)?, part(1)?, part(2)?])
}

/// A product with a transposed matrix, whose gradient by the weight lies in memory as the weight does.
struct Linear;

impl Linear {
    fn forward<S: BackendStorage>(&self, x: &S, lx: &Layout, weight: &S, lw: &Layout) -> Result<(S, Shape)> {
        let ((n, inputs), (outputs, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let y = x.matmul(weight, (1, n, outputs, inputs), lx, &lw.transpose(0, 1)?)?;
        Ok((y, (n, outputs).into()))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn metal_fwd(
        &self,
        s1: &MetalStorage,
        l1: &Layout,
        s2: &MetalStorage,
        l2: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad_x = x.track_op().then(|| grad.matmul(&weight.detach()));
        let grad_weight = weight.track_op().then(|| grad.t()?.matmul(&x.detach()));
        Ok((grad_x.transpose()?, grad_weight.transpose()?))
    }
}
