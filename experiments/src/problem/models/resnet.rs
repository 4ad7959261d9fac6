//! Residual networks for images of CIFAR's size (He et al. 2015, arXiv:1512.03385).

use super::{
    forward::{ForwardContext, Model},
    layers::{BatchNorm, affine, conv3x3},
    shape::{ImageShape, Shape},
    spec::{Least, ModelConfig, least_of_convolutions},
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

/// The channels of the stages, and the blocks of each.
const STAGES_20: (&[usize], usize) = (&[16, 32, 64], 3);
const STAGES_18: (&[usize], usize) = (&[64, 128, 256, 512], 2);

pub(super) fn least_20(_: &ModelConfig, shape: &Shape) -> Least {
    least(STAGES_20, shape)
}

pub(super) fn least_18(_: &ModelConfig, shape: &Shape) -> Least {
    least(STAGES_18, shape)
}

fn least((stages, blocks_of_stage): (&[usize], usize), shape: &Shape) -> Least {
    let (channels, height, width) = shape.image();
    // What a convolution puts out, and that with its norm.
    let mut convolutions = vec![(channels, stages[0], 3, height * width, 2)];
    let mut inputs = stages[0];
    for (halvings, &outputs) in stages.iter().enumerate() {
        let pixels = height.div_ceil(1 << halvings) * width.div_ceil(1 << halvings);
        for _ in 0..blocks_of_stage {
            convolutions.extend([(inputs, outputs, 3, pixels, 2), (outputs, outputs, 3, pixels, 2)]);
            inputs = outputs;
        }
    }
    least_of_convolutions(convolutions)
}

impl ResNet {
    /// 20 layers: three stages of three blocks with 16, 32 and 64 channels (section 4.2). Shortcuts have no parameters (option A):
    /// 0.27 million for CIFAR-10.
    pub(super) fn build_20(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        Self::build(STAGES_20, false, shape, &vb)
    }

    /// 18 layers: ImageNet's four stages of two blocks with 64, 128, 256 and 512 channels (table 1), on images that nothing makes smaller
    /// before. Shortcuts between stages are convolutions (option B): 11.2 million for CIFAR-10.
    pub(super) fn build_18(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        Self::build(STAGES_18, true, shape, &vb)
    }

    fn build(
        (stages, blocks_of_stage): (&[usize], usize),
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
            conv: conv3x3(shape.channels, stages[0], 1, vb.pp("stem.conv"))?,
            norm: BatchNorm::new(stages[0], vb.pp("stem.norm"))?,
            blocks,
            classifier: linear(channels, shape.classes, vb.pp("classifier"))?,
        }))
    }
}

impl Model for ResNet {
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let mut x = self.norm.convolve_relu(&self.conv, x, None, pass)?;
        pass.activation("stem", &x)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
            pass.activation(&block.name, &x)?;
        }
        let logits = affine(&self.classifier, &pass.ops.global_average(&x)?, pass)?;
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
    Identity,
    /// Option A: every `stride`-th pixel of every `stride`-th row, and zeros for the channels that are new.
    Pixels {
        stride: usize,
        channels: usize,
    },
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
        let shortcut = if stride == 1 {
            Shortcut::Identity
        } else if convolves_shortcut {
            let config = Conv2dConfig { stride, ..Default::default() };
            let conv = candle_nn::conv2d_no_bias(in_channels, out_channels, 1, config, vb.pp("shortcut").pp("conv"))?;
            Shortcut::Convolution(conv, BatchNorm::new(out_channels, vb.pp("shortcut").pp("norm"))?)
        } else {
            Shortcut::Pixels { stride, channels: out_channels }
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

    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let y = self.norm1.convolve_relu(&self.conv1, x, None, pass)?;
        let x = match &self.shortcut {
            Shortcut::Identity => x.clone(),
            Shortcut::Pixels { stride, channels } => pass.ops.shortcut(x, *stride, *channels)?,
            Shortcut::Convolution(conv, norm) => norm.convolve(conv, x, pass)?,
        };
        self.norm2.convolve_relu(&self.conv2, &y, Some(&x), pass)
    }
}
