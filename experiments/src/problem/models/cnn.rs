//! A small convolutional network.

use super::{
    forward::{ForwardContext, Model},
    layers::{affine, convolve_bias_relu},
    shape::{ImageShape, Shape},
    spec::{Least, ModelConfig, least_of_convolutions},
};
use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, conv2d, linear};

/// Three 3x3 convolutions of 16, 32 and 64 channels with ReLU, each followed by 2x2 max pooling, then a linear classifier.
pub(super) struct Cnn {
    convs: Vec<Conv2d>,
    classifier: Linear,
}

pub(super) fn least(_: &ModelConfig, shape: &Shape) -> Least {
    let (channels, height, width) = shape.image();
    let pixels = |halvings: u32| (height >> halvings) * (width >> halvings);
    least_of_convolutions([
        (channels, 16, 3, pixels(0), 1),
        (16, 32, 3, pixels(1), 1),
        (32, 64, 3, pixels(2), 1),
        // The classifier sees the whole of what is left.
        (64 * pixels(3), 10, 1, 1, 1),
    ])
}

impl Cnn {
    pub(super) fn build(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        let config = Conv2dConfig { padding: 1, ..Default::default() };
        let (mut channels, mut height, mut width) = (shape.channels, shape.height, shape.width);
        let mut convs = Vec::new();
        for (i, out_channels) in [16, 32, 64].into_iter().enumerate() {
            convs.push(conv2d(channels, out_channels, 3, config, vb.pp(format!("conv{}", i + 1)))?);
            (channels, height, width) = (out_channels, height / 2, width / 2);
        }
        let classifier = linear(channels * height * width, shape.classes, vb.pp("classifier"))?;
        Ok(Box::new(Self { convs, classifier }))
    }
}

impl Model for Cnn {
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            x = pass.ops.max_pool2(&convolve_bias_relu(conv, &x, pass)?)?;
            pass.activation(&format!("conv{}", i + 1), &x)?;
        }
        let logits = affine(&self.classifier, &x.flatten_from(1)?, pass)?;
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }
}
