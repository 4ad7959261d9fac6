//! The operations that models are made of, from the crate `ops` or by candle's own.

use candle_core::{Result, Tensor};
use ops::{Before, Conv2d, ConvNorm, Heads, Masks, Normalized, Pool2d};
use serde::{Deserialize, Serialize};

/// Whose operations models run on. Shapes, conventions and errors are those of the crate `ops`; but parameters may be of another type
/// than `x`, to which they are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operations {
    /// Those of the crate `ops`.
    #[default]
    Descent,
    /// candle's, composed where candle lacks one or its gradient is wrong. The values are the same but for rounding, and so are the
    /// gradients, but for two: at exactly 0 the rectifier's is 1 and not 0, and equal maxima share that of a window. candle
    /// differentiates a convolution with a stride for square images only.
    Candle,
}

impl Operations {
    /// [`ops::conv2d`]
    pub(super) fn conv2d(self, x: &Tensor, weight: &Tensor, options: Conv2d) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        match self {
            Self::Descent => ops::conv2d(x, weight, options),
            Self::Candle => {
                let Conv2d { stride, padding, dilation, groups } = options;
                x.conv2d(weight, padding, stride, dilation, groups)
            }
        }
    }

    /// [`ops::conv2d_bias`]
    pub(super) fn conv2d_bias(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        relu: bool,
        options: Conv2d,
    ) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        let bias = &like(x, bias)?;
        match self {
            Self::Descent => ops::conv2d_bias(x, weight, bias, relu, options),
            Self::Candle => self.scale_shift(&self.conv2d(x, weight, options)?, &bias.ones_like()?, bias, relu),
        }
    }

    /// [`ops::batch_norm`]
    pub(super) fn batch_norm(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
        relu: bool,
    ) -> Result<Normalized> {
        let weight = &like(x, weight)?;
        let bias = &like(x, bias)?;
        match self {
            Self::Descent => ops::batch_norm(x, weight, bias, eps, relu),
            Self::Candle => candle::batch_norm(x, weight, bias, eps, relu),
        }
    }

    /// [`ops::conv2d_batch_norm`]
    pub(super) fn conv2d_batch_norm(
        self,
        x: &Tensor,
        kernels: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        residual: Option<&Tensor>,
        options: ConvNorm,
    ) -> Result<Normalized> {
        let kernels = &like(x, kernels)?;
        let weight = &like(x, weight)?;
        let bias = &like(x, bias)?;
        match self {
            Self::Descent => ops::conv2d_batch_norm(x, kernels, weight, bias, residual, options),
            Self::Candle => {
                let ConvNorm { conv, eps, relu } = options;
                let x = self.conv2d(x, kernels, conv)?;
                let Some(residual) = residual else { return self.batch_norm(&x, weight, bias, eps, relu) };
                let normal = self.batch_norm(&x, weight, bias, eps, false)?;
                let sum = (normal.output + residual)?;
                Ok(Normalized { output: if relu { sum.relu()? } else { sum }, ..normal })
            }
        }
    }

    /// [`ops::scale_shift`]
    pub(super) fn scale_shift(self, x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
        let scale = &like(x, scale)?;
        let shift = &like(x, shift)?;
        match self {
            Self::Descent => ops::scale_shift(x, scale, shift, relu),
            Self::Candle => candle::scale_shift(x, scale, shift, relu),
        }
    }

    /// [`ops::relu`]
    pub(super) fn relu(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => ops::relu(x),
            Self::Candle => x.relu(),
        }
    }

    /// [`ops::add_relu`]
    pub(super) fn add_relu(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => ops::add_relu(a, b),
            Self::Candle => (a + b)?.relu(),
        }
    }

    /// [`ops::max_pool2d`] of windows of 2x2.
    pub(super) fn max_pool2(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => ops::max_pool2d(x, Pool2d::square(2)),
            Self::Candle => candle::max_pool2(x),
        }
    }

    /// Global [`ops::avg_pool2d`]: (n, c, h, w) to (n, c).
    pub(super) fn global_average(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => {
                let (n, channels, height, width) = x.dims4()?;
                ops::avg_pool2d(x, Pool2d::whole(height, width), true)?.reshape((n, channels))
            }
            Self::Candle => x.flatten_from(2)?.mean(2),
        }
    }

    /// [`ops::shortcut`]
    pub(super) fn shortcut(self, x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
        match self {
            Self::Descent => ops::shortcut(x, stride, channels),
            Self::Candle => candle::shortcut(x, stride, channels),
        }
    }

    /// [`ops::linear`]
    pub(super) fn linear(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        match self {
            Self::Descent => ops::linear(x, weight),
            Self::Candle => x.matmul(&weight.t()?),
        }
    }

    /// [`ops::fused_linear`]
    pub(super) fn fused_linear(
        self,
        x: &Tensor,
        weight: &Tensor,
        before: Before,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        let norm;
        let before = match before {
            Before::LayerNorm { weight, eps } => {
                norm = like(x, weight)?;
                Before::LayerNorm { weight: &norm, eps }
            }
            Before::Nothing | Before::Gelu => before,
        };
        match self {
            Self::Descent => ops::fused_linear(x, weight, before, residual),
            Self::Candle => {
                let x = match before {
                    Before::Nothing => x.clone(),
                    Before::LayerNorm { weight, eps } => self.layer_norm(x, weight, eps)?,
                    Before::Gelu => x.gelu_erf()?,
                };
                let y = self.linear(&x, weight)?;
                residual.map_or(Ok(y.clone()), |residual| residual + &y)
            }
        }
    }

    /// [`ops::layer_norm`]
    pub(super) fn layer_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        match self {
            Self::Descent => ops::layer_norm(x, weight, eps),
            // The quick one has no backward pass.
            Self::Candle => candle_nn::ops::layer_norm_slow(x, weight, &weight.zeros_like()?, eps as f32),
        }
    }

    /// [`ops::dropout`]
    pub(super) fn dropout(self, x: &Tensor, masks: Masks) -> Result<Tensor> {
        match self {
            Self::Descent => ops::dropout(x, masks),
            Self::Candle => candle::dropout(x, &masks),
        }
    }

    /// [`ops::causal_attention`]
    pub(super) fn causal_attention(self, qkv: &Tensor, heads: Heads, masks: Option<Masks>) -> Result<Tensor> {
        match self {
            Self::Descent => ops::causal_attention(qkv, heads, masks),
            Self::Candle => candle::causal_attention(qkv, heads, masks),
        }
    }

    /// The mean of the cross-entropy in nats between the softmax of `logits` (n, classes) and `labels` (n, u32), a scalar.
    ///
    /// # Errors
    /// When shapes or dtypes do not fit each other, there are no rows, or a label is not below `classes`.
    pub fn cross_entropy(self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => ops::cross_entropy(logits, labels, 0.0),
            Self::Candle => candle_nn::loss::cross_entropy(logits, labels),
        }
    }
}

/// A parameter as it is used beside `x`: in mixed precision, rounded to its type.
fn like(x: &Tensor, parameter: &Tensor) -> Result<Tensor> {
    parameter.to_dtype(x.dtype())
}

/// What candle has no operation for, or none that can be trained through, made of those that it differentiates rightly.
mod candle {
    use super::{Heads, Masks, Normalized};
    use candle_core::{D, Result, Tensor};

    pub(super) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
        let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
        let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
        if relu { y.relu() } else { Ok(y) }
    }

    /// `candle_nn::BatchNorm` keeps its statistics to itself.
    pub(super) fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<Normalized> {
        // In two steps, because candle is quick at sums over the last dimension only.
        let channel_mean = |x: &Tensor| x.flatten_from(2)?.mean(2)?.mean(0);
        let mean = channel_mean(x)?;
        let centred = x.broadcast_sub(&mean.reshape((1, (), 1, 1))?)?;
        let variance = channel_mean(&centred.sqr()?)?;
        let scale = (weight / (&variance + eps)?.sqrt()?)?;
        let output = scale_shift(&centred, &scale, bias, relu)?;
        Ok(Normalized { output, mean: mean.detach(), variance: variance.detach() })
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

    pub(super) fn dropout(x: &Tensor, masks: &Masks) -> Result<Tensor> {
        let (mut stays, scale) = (masks.mask(0), masks.scale() as f32);
        let factors: Vec<f32> = (0..x.elem_count()).map(|_| if stays() { scale } else { 0.0 }).collect();
        x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
    }

    pub(super) fn causal_attention(qkv: &Tensor, heads: Heads, masks: Option<Masks>) -> Result<Tensor> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::models::{self, ImageShape, Model, Noise, Parameters, Pass, Shape};
    use candle_core::{DType, Device, Var};
    use candle_nn::Optimizer;

    /// Every model, in each form that runs on other operations.
    const MODELS: [&str; 9] = [
        "mlp",
        "cnn",
        "cnn4",
        "cnn4:norm=batch",
        "resnet20",
        "resnet18",
        "gpt:layers=2,width=32,context=16",
        "gpt:layers=2,width=32,context=16,norm=post",
        "gpt:layers=2,width=32,context=16,dropout=0.1",
    ];
    /// Odd, so that a row and a column are left over wherever the size is halved.
    const IMAGES: ImageShape = ImageShape { channels: 3, height: 13, width: 13, classes: 5 };
    const VOCABULARY: usize = 11;
    const N: usize = 6;

    struct Trained {
        ops: Operations,
        parameters: Parameters,
        model: Box<dyn Model>,
        x: Tensor,
        labels: Tensor,
    }

    impl Trained {
        fn new(text: &str, ops: Operations) -> Self {
            let (config, parameters, device) = (models::parse(text).unwrap(), Parameters::new(3), Device::Cpu);
            let label = |classes: usize| move |i: usize| ((i * i + i) % classes) as u32;
            let (shape, x, labels): (_, _, Vec<u32>) = match config.context() {
                Some(context) => {
                    let tokens = (0..N * context).map(|i| (i * i % VOCABULARY) as u32);
                    let x = Tensor::from_iter(tokens, &device).unwrap().reshape((N, context)).unwrap();
                    let labels = (0..N * context).map(label(VOCABULARY)).collect();
                    (Shape::Text { vocabulary: VOCABULARY, context }, x, labels)
                }
                None => {
                    let dims = (N, IMAGES.channels, IMAGES.height, IMAGES.width);
                    let pixels =
                        (0..N * IMAGES.channels * IMAGES.height * IMAGES.width).map(|i| ((i * i) as f32).sin());
                    let x = Tensor::from_iter(pixels, &device).unwrap().reshape(dims).unwrap();
                    (Shape::Images(IMAGES), x, (0..N).map(label(IMAGES.classes)).collect())
                }
            };
            let model = config.build(&shape, parameters.builder(&device)).unwrap();
            Self { ops, parameters, model, x, labels: Tensor::new(labels, &device).unwrap() }
        }

        fn loss(&self, step: u64) -> Tensor {
            self.loss_in(DType::F32, step)
        }

        fn loss_in(&self, dtype: DType, step: u64) -> Tensor {
            let pass = Pass::train(0).with_ops(self.ops).with_noise(Noise { seed: 0, step }).with_dtype(dtype);
            pass.loss(&*self.model, &self.x, &self.labels).unwrap().0
        }

        fn variables(&self) -> Vec<Var> {
            self.parameters.trainable().into_iter().map(|(_, var)| var).collect()
        }
    }

    fn values(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    }

    /// The largest difference, over the largest absolute value.
    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (values(a), values(b));
        assert_eq!(a.len(), b.len());
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |max, x| f64::max(max, x.abs()));
        largest(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / largest(&mut a.iter().copied()).max(1e-30)
    }

    #[test]
    fn every_model_is_here() {
        for spec in models::all() {
            assert!(MODELS.iter().any(|text| text.split(':').next() == Some(spec.name)), "{}", spec.name);
        }
    }

    /// Losses within 1e-6 of each other, gradients within 2e-5 of their largest value, running statistics within 5e-6: f32's rounding,
    /// of Winograd's method a few times that, and the eight digits of candle's gelu.
    #[test]
    fn candles_operations_give_the_same_losses_and_gradients() {
        for text in MODELS {
            let [ours, candles] = [Operations::Descent, Operations::Candle].map(|by| Trained::new(text, by));
            let [loss, expected] = [ours.loss(0), candles.loss(0)];
            assert!(difference(&expected, &loss) < 1e-6, "{text}: the loss {loss} is not {expected}");
            let [grads, expected] = [loss, expected].map(|loss| loss.backward().unwrap());
            let variables = ours.parameters.trainable().into_iter().zip(candles.parameters.trainable());
            for ((name, var), (_, candles)) in variables {
                let difference = difference(expected.get(&candles).unwrap(), grads.get(&var).unwrap());
                assert!(difference < 2e-5, "{text}: the gradient of {name} differs by {difference:e}");
            }
            for ((name, buffer), (_, candles)) in ours.parameters.buffers().iter().zip(candles.parameters.buffers()) {
                let difference = difference(&candles, buffer);
                assert!(difference < 5e-6, "{text}: {name} differs by {difference:e}");
            }
            let evaluated = [&ours, &candles].map(|trained| {
                let pass = Pass::evaluate().with_ops(trained.ops);
                trained.model.forward(&trained.x, &pass).unwrap()
            });
            let difference = difference(&evaluated[1], &evaluated[0]);
            assert!(difference < 1e-5, "{text}: evaluated logits differ by {difference:e}");
        }
    }

    /// bf16 has 8 bits, so that a number is rounded by up to 2^-9 of it at each layer. Gradients' roundings add up over all layers, and
    /// some numbers change sides at a rectifier: the norm of the whole difference is 0.014 of the gradient in the shallow cnn, and 0.2 in
    /// resnet20. That of a gradient that is unrelated would be 1 or more.
    #[test]
    fn mixed_precision_is_near_single_precision_and_its_gradients_are_single() {
        for text in MODELS {
            let [single, mixed] = [DType::F32, DType::BF16].map(|dtype| {
                let trained = Trained::new(text, Operations::Descent);
                (trained.loss_in(dtype, 0), trained.parameters)
            });
            assert_eq!(mixed.0.dtype(), DType::F32, "{text}");
            let distance = difference(&single.0, &mixed.0);
            assert!(distance > 0.0 && distance < 0.01, "{text}: the losses differ by {distance:e}");
            let grads = [&single, &mixed].map(|(loss, parameters)| {
                let grads = loss.backward().unwrap();
                let gradient = |(name, var): (String, Var)| (name, grads.get(&var).unwrap().clone());
                parameters.trainable().into_iter().map(gradient).collect::<Vec<_>>()
            });
            let (mut error, mut whole) = (0.0, 0.0);
            for ((name, single), (_, mixed)) in grads[0].iter().zip(&grads[1]) {
                assert_eq!(mixed.dtype(), DType::F32, "{text}: the gradient of {name}");
                let squares = |tensor: &Tensor| values(tensor).iter().map(|x| x * x).sum::<f64>();
                error += squares(&(single - mixed).unwrap());
                whole += squares(single);
            }
            let distance = f64::sqrt(error / whole);
            assert!(distance < 0.3, "{text}: the gradients differ by {distance:e}");
            for (name, buffer) in mixed.1.buffers() {
                assert_eq!(buffer.dtype(), DType::F32, "{text}: {name}");
            }
        }
    }

    /// Ten updates of SGD: losses differ by less than 1e-4 of the first, and in all the loss falls.
    #[test]
    fn training_goes_the_same_way() {
        for text in MODELS {
            let losses = [Operations::Descent, Operations::Candle].map(|by| {
                let trained = Trained::new(text, by);
                let rule = optim::by_name("sgd:lr=0.02,momentum=0.9").unwrap();
                let mut optimizer = optim::AnyOptimizer::new(trained.variables(), rule).unwrap();
                let mut step = |step| {
                    let loss = trained.loss(step);
                    optimizer.backward_step(&loss).unwrap();
                    values(&loss)[0]
                };
                (0..10).map(&mut step).collect::<Vec<f64>>()
            });
            for (step, (ours, candles)) in losses[0].iter().zip(&losses[1]).enumerate() {
                let largest = 1e-4 * losses[1][0];
                assert!((ours - candles).abs() < largest, "{text}: at step {step} {ours} is not {candles}");
            }
            assert!(losses[0][9] < losses[0][0], "{text}: {:?}", losses[0]);
        }
    }
}
