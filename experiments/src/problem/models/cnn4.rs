//! A convolutional network without pooling.

use super::{
    forward::{ForwardContext, Model},
    layers::{BatchNorm, affine, conv3x3, convolve_bias_relu},
    shape::{ImageShape, Shape},
    spec::{Allowed, Key, Least, ModelConfig, Value, least_of_convolutions},
};
use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, conv2d, linear};

pub(super) const KEYS: &[Key] = &[Key {
    name: "norm",
    doc: "what follows a convolution: its bias, or batch norm",
    default: Value::Word("none"),
    allowed: Allowed::Words(&["none", "batch"]),
}];

/// Four 3x3 convolutions of 32, 64, 128 and 128 channels with ReLU, the second and the third with stride 2, the global average, and
/// a linear classifier.
pub(super) struct Cnn4 {
    layers: Vec<Layer>,
    classifier: Linear,
}

struct Layer {
    name: String,
    conv: Conv2d,
    /// None where the convolution has a bias.
    norm: Option<BatchNorm>,
}

pub(super) fn least(_: &ModelConfig, shape: &Shape) -> Least {
    let (channels, height, width) = shape.image();
    let pixels = |halvings: u32| height.div_ceil(1 << halvings) * width.div_ceil(1 << halvings);
    least_of_convolutions([
        (channels, 32, 3, pixels(0), 1),
        (32, 64, 3, pixels(1), 1),
        (64, 128, 3, pixels(2), 1),
        (128, 128, 3, pixels(2), 1),
    ])
}

impl Cnn4 {
    pub(super) fn build(config: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        let is_normal = config.get("norm") == Some(Value::Word("batch"));
        let (mut channels, mut layers) = (shape.channels, Vec::new());
        for (i, (outputs, stride)) in [(32, 1), (64, 2), (128, 2), (128, 1)].into_iter().enumerate() {
            let name = format!("conv{}", i + 1);
            let vb = vb.pp(&name);
            let (conv, norm) = if is_normal {
                (conv3x3(channels, outputs, stride, vb.clone())?, Some(BatchNorm::new(outputs, vb.pp("norm"))?))
            } else {
                let config = Conv2dConfig { padding: 1, stride, ..Default::default() };
                (conv2d(channels, outputs, 3, config, vb)?, None)
            };
            layers.push(Layer { name, conv, norm });
            channels = outputs;
        }
        Ok(Box::new(Self { layers, classifier: linear(channels, shape.classes, vb.pp("classifier"))? }))
    }
}

impl Model for Cnn4 {
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let mut x = x.clone();
        for Layer { name, conv, norm } in &self.layers {
            x = match norm {
                Some(norm) => norm.convolve_relu(conv, &x, None, pass)?,
                None => convolve_bias_relu(conv, &x, pass)?,
            };
            pass.activation(name, &x)?;
        }
        let logits = affine(&self.classifier, &pass.ops.global_average(&x)?, pass)?;
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }
}
