//! A multi-layer perceptron.

use super::{
    forward::{ForwardContext, Model},
    layers::affine,
    shape::{ImageShape, Shape},
    spec::{Least, ModelConfig},
};
use candle_core::{Result, Tensor};
use candle_nn::{Linear, VarBuilder, linear};

/// Hidden layers of 128 and 64 with ReLU over the flattened image.
pub(super) struct Mlp {
    layers: [Linear; 3],
}

pub(super) fn least(_: &ModelConfig, shape: &Shape) -> Least {
    let (channels, height, width) = shape.image();
    let pixels = (channels * height * width) as u64;
    Least { parameters: (pixels + 64) * 128, kept: pixels + 128 + 64 }
}

impl Mlp {
    pub(super) fn build(_: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        let pixels = shape.channels * shape.height * shape.width;
        Ok(Box::new(Self {
            layers: [
                linear(pixels, 128, vb.pp("hidden1"))?,
                linear(128, 64, vb.pp("hidden2"))?,
                linear(64, shape.classes, vb.pp("classifier"))?,
            ],
        }))
    }
}

impl Model for Mlp {
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let [hidden1, hidden2, classifier] = &self.layers;
        let x = pass.ops.relu(&affine(hidden1, &x.flatten_from(1)?, pass)?)?;
        pass.activation("hidden1", &x)?;
        let x = pass.ops.relu(&affine(hidden2, &x, pass)?)?;
        pass.activation("hidden2", &x)?;
        let logits = affine(classifier, &x, pass)?;
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }
}
