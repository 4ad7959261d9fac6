//! A small convolutional network.

use super::{ImageShape, Model, Pass, layers::convolve};
use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder, conv2d, linear};

/// Three 3x3 convolutions of 16, 32 and 64 channels with ReLU, each followed by 2x2 max pooling, then a linear classifier.
pub(super) struct Cnn {
    convs: Vec<Conv2d>,
    classifier: Linear,
}

impl Cnn {
    pub(super) fn build(shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
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
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            let y = convolve(conv, &x)?;
            let y = match conv.bias() {
                Some(bias) => ops::scale_shift(&y, &bias.ones_like()?, bias, true)?,
                None => ops::relu(&y)?,
            };
            x = ops::max_pool2d(&y, ops::Pool2d::square(2))?;
            pass.activation(&format!("conv{}", i + 1), &x)?;
        }
        let logits = self.classifier.forward(&x.flatten_from(1)?)?;
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }
}
