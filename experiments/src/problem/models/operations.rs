//! The operations that models are made of, from the crate `ops` or by candle's own.

mod candle;

use crate::config::operations::Operations;
use candle_core::{Result, Tensor};
use ops::{
    BatchNormOutput, Conv2dBatchNormOptions, Conv2dOptions, DropoutMasks, Heads, Pool2dOptions, Prologue, reference,
};

impl Operations {
    /// [`ops::conv2d`]
    pub(super) fn conv2d(self, x: &Tensor, weight: &Tensor, options: Conv2dOptions) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        match self {
            Self::Descent => ops::conv2d(x, weight, options),
            Self::Candle => {
                let Conv2dOptions { stride, padding, dilation, groups } = options;
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
        options: Conv2dOptions,
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
    ) -> Result<BatchNormOutput> {
        let weight = &like(x, weight)?;
        let bias = &like(x, bias)?;
        match self {
            Self::Descent => ops::batch_norm(x, weight, bias, eps, relu),
            Self::Candle => reference::batch_norm(x, weight, bias, eps, relu),
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
        options: Conv2dBatchNormOptions,
    ) -> Result<BatchNormOutput> {
        let kernels = &like(x, kernels)?;
        let weight = &like(x, weight)?;
        let bias = &like(x, bias)?;
        match self {
            Self::Descent => ops::conv2d_batch_norm(x, kernels, weight, bias, residual, options),
            Self::Candle => {
                let Conv2dBatchNormOptions { conv, eps, relu } = options;
                let x = self.conv2d(x, kernels, conv)?;
                let Some(residual) = residual else { return self.batch_norm(&x, weight, bias, eps, relu) };
                let normal = self.batch_norm(&x, weight, bias, eps, false)?;
                let sum = (normal.output + residual)?;
                Ok(BatchNormOutput { output: if relu { sum.relu()? } else { sum }, ..normal })
            }
        }
    }

    /// [`ops::scale_shift`]
    pub(super) fn scale_shift(self, x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
        let scale = &like(x, scale)?;
        let shift = &like(x, shift)?;
        match self {
            Self::Descent => ops::scale_shift(x, scale, shift, relu),
            Self::Candle => reference::scale_shift(x, scale, shift, relu),
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
            Self::Descent => ops::max_pool2d(x, Pool2dOptions::square(2)),
            Self::Candle => candle::max_pool2(x),
        }
    }

    /// The maximum of each channel.
    pub(super) fn global_max(self, x: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = x.dims4()?;
        match self {
            Self::Descent => ops::max_pool2d(x, Pool2dOptions::whole(height, width))?.reshape((n, channels)),
            Self::Candle => x.flatten_from(2)?.max(2),
        }
    }

    /// [`ops::gelu`]
    pub(super) fn gelu(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => ops::gelu(x),
            Self::Candle => reference::gelu(x),
        }
    }

    /// Global [`ops::avg_pool2d`]: (n, c, h, w) to (n, c).
    pub(super) fn global_average(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Descent => {
                let (n, channels, height, width) = x.dims4()?;
                ops::avg_pool2d(x, Pool2dOptions::whole(height, width), true)?.reshape((n, channels))
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
        before: Prologue,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let weight = &like(x, weight)?;
        let norm;
        let before = match before {
            Prologue::LayerNorm { weight, eps } => {
                norm = like(x, weight)?;
                Prologue::LayerNorm { weight: &norm, eps }
            }
            Prologue::Nothing | Prologue::Gelu => before,
        };
        match self {
            Self::Descent => ops::fused_linear(x, weight, before, residual),
            Self::Candle => {
                let x = match before {
                    Prologue::Nothing => x.clone(),
                    Prologue::LayerNorm { weight, eps } => self.layer_norm(x, weight, eps)?,
                    Prologue::Gelu => x.gelu_erf()?,
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
    pub(super) fn dropout(self, x: &Tensor, masks: DropoutMasks) -> Result<Tensor> {
        match self {
            Self::Descent => ops::dropout(x, masks),
            Self::Candle => reference::dropout(x, &masks),
        }
    }

    /// [`ops::causal_attention`]
    pub(super) fn causal_attention(self, qkv: &Tensor, heads: Heads, masks: Option<DropoutMasks>) -> Result<Tensor> {
        match self {
            Self::Descent => ops::causal_attention(qkv, heads, masks),
            Self::Candle => reference::causal_attention(qkv, heads, masks),
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

#[cfg(test)]
mod tests;
