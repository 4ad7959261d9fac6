//! Layers that models share.

use super::forward::{ForwardContext, Mode};
use candle_core::{DType, Result, Tensor, Var};
use candle_nn::{Conv2d, Conv2dConfig, Init, Linear, VarBuilder};

/// A convolution of 3x3 with padding 1 and no bias.
pub(super) fn conv3x3(in_channels: usize, out_channels: usize, stride: usize, vb: VarBuilder) -> Result<Conv2d> {
    let config = Conv2dConfig { padding: 1, stride, ..Default::default() };
    candle_nn::conv2d_no_bias(in_channels, out_channels, 3, config, vb)
}

/// `x weight^T + bias`: x (n, inputs) to (n, outputs).
pub(super) fn affine(layer: &Linear, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
    let y = pass.ops.linear(x, layer.weight())?;
    layer.bias().map_or(Ok(y.clone()), |bias| y.broadcast_add(&bias.to_dtype(y.dtype())?))
}

/// `conv` of `x` without its bias.
pub(super) fn convolve(conv: &Conv2d, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
    pass.ops.conv2d(x, conv.weight(), options(conv))
}

fn options(conv: &Conv2d) -> ops::Conv2dOptions {
    let &Conv2dConfig { stride, padding, dilation, groups, .. } = conv.config();
    ops::Conv2dOptions { stride, padding, dilation, groups }
}

/// `relu(conv(x))`, with the bias if `conv` has one.
pub(super) fn convolve_bias_relu(conv: &Conv2d, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
    match conv.bias() {
        Some(bias) => pass.ops.conv2d_bias(x, conv.weight(), bias, true, options(conv)),
        None => pass.ops.relu(&convolve(conv, x, pass)?),
    }
}

/// The numbers of a batch norm.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchNormSettings {
    /// Added to the variance.
    pub eps: f64,
    /// How far the running statistics go towards those of a batch.
    pub momentum: f64,
    /// Whether the scale is a parameter; else it is 1.
    pub learns_scale: bool,
    /// The shift is so many times its parameter: gradient descent moves it by the square of that.
    pub bias_scale: f64,
}

impl Default for BatchNormSettings {
    /// PyTorch's.
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, learns_scale: true, bias_scale: 1.0 }
    }
}

/// Batch normalisation over (n, h, w) of each channel (Ioffe & Szegedy 2015, arXiv:1502.03167), with running statistics
/// `running += momentum (batch - running)`, the running variance from the unbiased one.
pub(super) struct BatchNorm {
    settings: BatchNormSettings,
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    pub(super) fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::with(channels, BatchNormSettings::default(), vb)
    }

    pub(super) fn with(channels: usize, settings: BatchNormSettings, vb: VarBuilder) -> Result<Self> {
        let weight = if settings.learns_scale {
            vb.get_with_hints(channels, "weight", Init::Const(1.0))?
        } else {
            Tensor::ones(channels, DType::F32, vb.device())?
        };
        Ok(Self {
            settings,
            weight,
            bias: vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
            running_mean: Var::from_tensor(&vb.get_with_hints(channels, "running_mean", Init::Const(0.0))?)?,
            running_var: Var::from_tensor(&vb.get_with_hints(channels, "running_var", Init::Const(1.0))?)?,
        })
    }

    fn bias(&self) -> Result<Tensor> {
        if self.settings.bias_scale == 1.0 { Ok(self.bias.clone()) } else { &self.bias * self.settings.bias_scale }
    }

    /// `relu(norm(conv(x)) + residual)`
    pub(super) fn convolve_relu(
        &self,
        conv: &Conv2d,
        x: &Tensor,
        residual: Option<&Tensor>,
        pass: &ForwardContext,
    ) -> Result<Tensor> {
        match pass.mode {
            Mode::Evaluate => {
                let y = self.evaluate(&convolve(conv, x, pass)?, residual.is_none(), pass)?;
                residual.map_or(Ok(y.clone()), |residual| pass.ops.add_relu(&y, residual))
            }
            Mode::Train { .. } | Mode::Renew { .. } => self.convolve_and_train(conv, x, residual, true, pass),
        }
    }

    /// `norm(x)`
    pub(super) fn normalise(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        match pass.mode {
            Mode::Evaluate => self.evaluate(x, false, pass),
            Mode::Train { .. } | Mode::Renew { .. } => {
                let normal = pass.ops.batch_norm(x, &self.weight, &self.bias()?, self.settings.eps, false)?;
                self.trained(normal, pass.mode)
            }
        }
    }

    /// `norm(conv(x))`
    pub(super) fn convolve(&self, conv: &Conv2d, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        match pass.mode {
            Mode::Evaluate => self.evaluate(&convolve(conv, x, pass)?, false, pass),
            Mode::Train { .. } | Mode::Renew { .. } => self.convolve_and_train(conv, x, None, false, pass),
        }
    }

    fn convolve_and_train(
        &self,
        conv: &Conv2d,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        pass: &ForwardContext,
    ) -> Result<Tensor> {
        let options = ops::Conv2dBatchNormOptions { conv: options(conv), eps: self.settings.eps, relu };
        let (weight, bias) = (&self.weight, &self.bias()?);
        let normal = pass.ops.conv2d_batch_norm(x, conv.weight(), weight, bias, residual, options)?;
        self.trained(normal, pass.mode)
    }

    fn evaluate(&self, x: &Tensor, relu: bool, pass: &ForwardContext) -> Result<Tensor> {
        let var = self.running_var.as_detached_tensor();
        let scale = (&self.weight / (var + self.settings.eps)?.sqrt()?)?;
        let shift = (self.bias()? - (self.running_mean.as_detached_tensor() * &scale)?)?;
        pass.ops.scale_shift(x, &scale, &shift, relu)
    }

    /// Moves the running statistics, in the first evaluation within a step or where they are renewed.
    fn trained(&self, normal: ops::BatchNormOutput, mode: Mode) -> Result<Tensor> {
        let momentum = match mode {
            Mode::Train { evaluation: 0 } => Some(self.settings.momentum),
            Mode::Renew { batch } => Some(1.0 / (batch + 1) as f64),
            Mode::Train { .. } | Mode::Evaluate => None,
        };
        if let Some(momentum) = momentum {
            let n = (normal.output.elem_count() / normal.mean.elem_count()) as f64;
            let unbiased = (&normal.variance * (n / (n - 1.0).max(1.0)))?;
            let [mean, unbiased] = [&normal.mean, &unbiased].map(|statistic| statistic.to_dtype(DType::F32));
            track(&self.running_mean, &mean?, momentum)?;
            track(&self.running_var, &unbiased?, momentum)?;
        }
        Ok(normal.output)
    }
}

/// `running += momentum (batch - running)`, outside the graph.
fn track(running: &Var, batch: &Tensor, momentum: f64) -> Result<()> {
    let old = running.as_detached_tensor();
    running.set(&((&old * (1.0 - momentum))? + (batch * momentum)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::models::parameters::Parameters;
    use candle_core::Device;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A channel with the values 1, 3, 5, 7 (mean 4, variance 5, unbiased 20/3) and one with 0, 0, 0, 8 (2, 12, 16).
    #[test]
    fn batch_norm_by_hand() {
        let x = Tensor::new(&[1.0f32, 3.0, 0.0, 0.0, 5.0, 7.0, 0.0, 8.0], &Device::Cpu).unwrap();
        let x = x.reshape((2, 2, 1, 2)).unwrap();
        let parameters = Parameters::new(0);
        let norm = BatchNorm::new(2, parameters.builder(&Device::Cpu)).unwrap();
        let same = Tensor::eye(2, DType::F32, &Device::Cpu).unwrap().reshape((2, 2, 1, 1)).unwrap();
        let conv = Conv2d::new(same, None, Conv2dConfig::default());
        let close = |found: Vec<f32>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((f64::from(*a) - b).abs() < 1e-6 * b.abs().max(1.0), "{found:?} is not {expected:?}");
            }
        };
        let y = values(&norm.convolve_relu(&conv, &x, None, &ForwardContext::train(0)).unwrap());
        let (a, b) = ((5.0f64 + 1e-5).sqrt(), (12.0f64 + 1e-5).sqrt());
        close(y, &[0.0, 0.0, 0.0, 0.0, 1.0 / a, 3.0 / a, 0.0, 6.0 / b]);
        let buffers = parameters.buffers();
        close(values(&buffers[0].1), &[0.4, 0.2]);
        close(values(&buffers[1].1), &[0.9 + 0.1 * 20.0 / 3.0, 0.9 + 1.6]);

        let y = values(&norm.convolve_relu(&conv, &x, None, &ForwardContext::evaluate()).unwrap());
        let (a, b) = ((0.9f64 + 2.0 / 3.0 + 1e-5).sqrt(), (2.5f64 + 1e-5).sqrt());
        close(y, &[0.6 / a, 2.6 / a, 0.0, 0.0, 4.6 / a, 6.6 / a, 0.0, 7.8 / b]);

        // Renewed, they are the mean over the batches: of these and of three times these, and nothing of before.
        for (batch, scale) in [(0, 1.0), (1, 3.0)] {
            let pass = ForwardContext { mode: Mode::Renew { batch }, ..ForwardContext::evaluate() };
            norm.convolve(&conv, &(&x * scale).unwrap(), &pass).unwrap();
        }
        let buffers = parameters.buffers();
        close(values(&buffers[0].1), &[8.0, 4.0]);
        close(values(&buffers[1].1), &[5.0 * 20.0 / 3.0, 5.0 * 16.0]);
    }
}
