//! Models that classify images.
//!
//! A model is built from the shape of its images and a [`VarBuilder`] over [`Parameters`]. To add one: a file with a type that
//! implements [`Model`] and a function that builds it, and a line in [`all`].

mod cnn;
mod layers;
mod mlp;
mod parameters;
mod resnet;

pub use parameters::Parameters;

use crate::names;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The size of the images that a model classifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// The number of classes.
    pub classes: usize,
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: batch norm uses the batch's statistics.
    Train {
        /// Which evaluation of the loss within the step this is. SAM evaluates twice; running statistics move in the first
        /// evaluation (0) only.
        evaluation: usize,
    },
    /// Measuring: batch norm uses the running statistics.
    Evaluate,
}

/// A classifier of images.
pub trait Model: Send {
    /// The logits (n, classes) of images `x` (n, channels, height, width).
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor>;
}

/// A model that can be chosen by name.
#[derive(Debug)]
pub struct ModelSpec {
    /// The name, as in `--model NAME`.
    pub name: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    /// Creates its layers for images of this shape.
    pub build: fn(ImageShape, VarBuilder) -> Result<Box<dyn Model>>,
}

/// All models, simplest first.
pub fn all() -> &'static [ModelSpec] {
    &[
        ModelSpec { name: "mlp", doc: "two hidden layers of 128 and 64 with ReLU", build: mlp::Mlp::build },
        ModelSpec {
            name: "cnn",
            doc: "three 3x3 convolutions of 16, 32 and 64 channels with ReLU and max pooling",
            build: cnn::Cnn::build,
        },
        ModelSpec {
            name: "resnet20",
            doc: "He et al.'s residual network for CIFAR with batch norm, 0.27 million parameters",
            build: resnet::ResNet20::build,
        },
    ]
}

/// The model of this name; the error names the nearest one.
pub fn by_name(name: &str) -> anyhow::Result<&'static ModelSpec> {
    let model = all().iter().find(|model| model.name == name);
    model.ok_or_else(|| names::unknown("model", name, all().iter().map(|model| model.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::loss::cross_entropy;

    const DIGITS: ImageShape = ImageShape { channels: 1, height: 8, width: 8, classes: 10 };
    const FASHION_MNIST: ImageShape = ImageShape { channels: 1, height: 28, width: 28, classes: 10 };
    const CIFAR10: ImageShape = ImageShape { channels: 3, height: 32, width: 32, classes: 10 };

    fn build(name: &str, shape: ImageShape, seed: u64) -> (Parameters, Box<dyn Model>) {
        let parameters = Parameters::new(seed);
        let model = (by_name(name).unwrap().build)(shape, parameters.builder(&Device::Cpu)).unwrap();
        (parameters, model)
    }

    /// Images that are no two alike.
    fn images(n: usize, shape: ImageShape) -> Tensor {
        let dims = (n, shape.channels, shape.height, shape.width);
        let len = n * shape.channels * shape.height * shape.width;
        let pixels: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        Tensor::from_vec(pixels, dims, &Device::Cpu).unwrap()
    }

    /// By hand: weights and biases of each layer. ResNet-20 has 0.27 M in He et al.'s table 6.
    #[test]
    fn parameter_counts() {
        let mlp = |pixels: usize| (pixels + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10;
        let cnn = |channels: usize, last: usize| {
            (channels * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (last * 64 + 1) * 10
        };
        for (name, shape, count) in [
            ("mlp", DIGITS, mlp(64)),
            ("mlp", CIFAR10, mlp(3072)),
            ("cnn", DIGITS, cnn(1, 1)),
            ("cnn", FASHION_MNIST, cnn(1, 9)),
            ("cnn", CIFAR10, cnn(3, 16)),
            ("resnet20", CIFAR10, 269_722),
            ("resnet20", DIGITS, 269_722 - 2 * 16 * 9),
        ] {
            assert_eq!(build(name, shape, 0).0.count(), count, "{name} {shape:?}");
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for model in all() {
            for shape in [DIGITS, FASHION_MNIST] {
                let (parameters, network) = build(model.name, shape, 0);
                let logits = network.forward(&images(4, shape), Mode::Train { evaluation: 0 }).unwrap();
                assert_eq!(logits.dims(), [4, 10]);
                let labels = Tensor::new(&[0u32, 3, 9, 1], &Device::Cpu).unwrap();
                let grads = cross_entropy(&logits, &labels).unwrap().backward().unwrap();
                for (name, var) in parameters.trainable() {
                    let grad = grads.get(&var).unwrap_or_else(|| panic!("{}: {name} has no gradient", model.name));
                    let norm = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                    assert!(norm > 0.0 && norm.is_finite(), "{} {shape:?}: {name} has the gradient {norm}", model.name);
                }
                assert!(parameters.buffers().iter().all(|(_, buffer)| grads.get(buffer).is_none()));
            }
        }
    }

    #[test]
    fn running_statistics_move_in_the_first_evaluation_of_a_step_only() {
        let (parameters, network) = build("resnet20", DIGITS, 0);
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let buffers = || parameters.buffers().iter().map(|(_, buffer)| values(buffer)).collect::<Vec<_>>();
        let x = images(4, DIGITS);
        let fresh = buffers();
        assert_eq!(fresh.len(), 2 * 19);
        let first = network.forward(&x, Mode::Train { evaluation: 0 }).unwrap();
        let moved = buffers();
        assert!(moved.iter().zip(&fresh).all(|(moved, fresh)| moved != fresh));
        let second = network.forward(&x, Mode::Train { evaluation: 1 }).unwrap();
        assert_eq!(values(&first), values(&second));
        let evaluated = network.forward(&x, Mode::Evaluate).unwrap();
        assert_ne!(values(&first), values(&evaluated));
        assert_eq!(buffers(), moved);
    }
}
