//! Residual networks for images of CIFAR's size (He et al. 2015, arXiv:1512.03385).

use super::{
    ImageShape, Model, ModelConfig, Pass,
    layers::{BatchNorm, affine, conv3x3, convolve, global_average_pool},
};
use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, linear};

/// A 3x3 convolution, stages of basic blocks, each with twice the channels of the one before, the global average, and a linear
/// classifier.
pub(super) struct ResNet {
    conv: Conv2d,
    norm: BatchNorm,
    blocks: Vec<BasicBlock>,
    classifier: Linear,
}

impl ResNet {
    /// 20 layers: three stages of three blocks with 16, 32 and 64 channels (section 4.2). Shortcuts have no parameters (option A):
    /// 0.27 million for CIFAR-10.
    pub(super) fn build_20(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        Self::build(&[16, 32, 64], 3, false, shape, &vb)
    }

    /// 18 layers: ImageNet's four stages of two blocks with 64, 128, 256 and 512 channels (table 1), on images that nothing makes smaller
    /// before. Shortcuts between stages are convolutions (option B): 11.2 million for CIFAR-10.
    pub(super) fn build_18(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        Self::build(&[64, 128, 256, 512], 2, true, shape, &vb)
    }

    fn build(
        stages: &[usize],
        blocks_of_stage: usize,
        convolves_shortcuts: bool,
        shape: ImageShape,
        vb: &VarBuilder,
    ) -> Result<Box<dyn Model>> {
        let (mut blocks, mut channels) = (Vec::new(), stages[0]);
        for (stage, &out_channels) in stages.iter().enumerate() {
            for block in 0..blocks_of_stage {
                let name = format!("stage{}.{block}", stage + 1);
                blocks.push(BasicBlock::new(channels, out_channels, convolves_shortcuts, name, vb)?);
                channels = out_channels;
            }
        }
        Ok(Box::new(Self {
            conv: conv3x3(shape.channels, stages[0], 1, vb.pp("conv"))?,
            norm: BatchNorm::new(stages[0], vb.pp("norm"))?,
            blocks,
            classifier: linear(channels, shape.classes, vb.pp("classifier"))?,
        }))
    }
}

impl Model for ResNet {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = convolve(&self.conv, x, pass)?;
        pass.activation("conv", &x)?;
        let mut x = self.norm.forward_relu(&x, pass)?;
        pass.activation("norm", &x)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
            pass.activation(&block.name, &x)?;
        }
        let logits = affine(&self.classifier, &global_average_pool(&x)?, pass)?;
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }
}

/// `relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`, with stride 2 where the channels double.
struct BasicBlock {
    name: String,
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    shortcut: Shortcut,
}

enum Shortcut {
    /// Every pixel, or every `stride`-th of every `stride`-th row, and zeros for the channels that are new.
    Pixels { stride: usize },
    /// `norm(conv(x))` of 1x1.
    Convolution(Conv2d, BatchNorm),
}

impl BasicBlock {
    fn new(
        in_channels: usize,
        out_channels: usize,
        convolves_shortcut: bool,
        name: String,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let vb = vb.pp(&name);
        let stride = out_channels / in_channels;
        let shortcut = if convolves_shortcut && stride > 1 {
            let config = Conv2dConfig { stride, ..Default::default() };
            let conv = candle_nn::conv2d_no_bias(in_channels, out_channels, 1, config, vb.pp("shortcut").pp("conv"))?;
            Shortcut::Convolution(conv, BatchNorm::new(out_channels, vb.pp("shortcut").pp("norm"))?)
        } else {
            Shortcut::Pixels { stride }
        };
        Ok(Self {
            conv1: conv3x3(in_channels, out_channels, stride, vb.pp("conv1"))?,
            norm1: BatchNorm::new(out_channels, vb.pp("norm1"))?,
            conv2: conv3x3(out_channels, out_channels, 1, vb.pp("conv2"))?,
            norm2: BatchNorm::new(out_channels, vb.pp("norm2"))?,
            shortcut,
            name,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.norm1.convolve_relu(&self.conv1, x, None, pass)?;
        let x = match &self.shortcut {
            Shortcut::Pixels { stride } => shortcut(x, *stride)?,
            Shortcut::Convolution(conv, norm) => norm.convolve(conv, x, pass)?,
        };
        self.norm2.convolve_relu(&self.conv2, &y, Some(&x), pass)
    }
}

/// Option A: every `stride`-th row and column, and zeros for the channels that are new.
fn shortcut(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let x = every_second(&every_second(x, 2)?, 3)?;
    let new_channels = x.dim(1)?;
    x.pad_with_zeros(1, new_channels / 2, new_channels - new_channels / 2)
}

/// Elements 0, 2, 4, .. along `dim`.
fn every_second(x: &Tensor, dim: usize) -> Result<Tensor> {
    let len = x.dim(dim)?;
    let x = if len % 2 == 0 { x.clone() } else { x.pad_with_zeros(dim, 0, 1)? };
    let mut pairs = x.dims().to_vec();
    pairs.splice(dim..=dim, [len.div_ceil(2), 2]);
    x.reshape(pairs)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_shortcut_takes_every_second_pixel_and_pads_the_channels() {
        for side in [4usize, 5] {
            let x = Tensor::arange(0f32, (2 * side * side) as f32, &Device::Cpu).unwrap();
            let x = x.reshape((1, 2, side, side)).unwrap();
            let y = shortcut(&x, 2).unwrap();
            let half = side.div_ceil(2);
            assert_eq!(y.dims(), [1, 4, half, half]);
            let planes: Vec<Vec<Vec<f32>>> = y.squeeze(0).unwrap().to_vec3().unwrap();
            for (channel, plane) in planes.iter().enumerate() {
                for (row, pixels) in plane.iter().enumerate() {
                    for (column, &pixel) in pixels.iter().enumerate() {
                        let expected = match channel {
                            1 | 2 => (((channel - 1) * side + 2 * row) * side + 2 * column) as f32,
                            _ => 0.0,
                        };
                        assert_eq!(pixel, expected, "side {side}, channel {channel}, row {row}, column {column}");
                    }
                }
            }
        }
    }
}
