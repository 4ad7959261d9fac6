//! Models that classify images or predict the next character of a text.
//!
//! A model is built from the [`Shape`] of its data and a [`VarBuilder`] over [`Parameters`]. To add one: a file with a type
//! that implements [`Model`] and a function that builds it, and a line in [`all`].

mod cnn;
mod cnn4;
mod config;
mod dropout;
mod gpt;
mod layers;
mod mlp;
mod operations;
mod parameters;
mod probe;
mod resnet;

pub use config::{Allowed, Key, ModelConfig, Value, parse};
pub use operations::Operations;
pub use parameters::Parameters;
pub use probe::{Probe, layer_of};

use crate::problem::data::Kind;
use candle_core::{DType, Result, Tensor};
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

/// What a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Images.
    Images(ImageShape),
    /// Tokens.
    Text {
        /// The number of different tokens.
        vocabulary: usize,
        /// The most tokens in a window.
        context: usize,
    },
}

impl Shape {
    /// The channels and sides of an image; none of text.
    fn image(&self) -> (usize, usize, usize) {
        match self {
            Self::Images(shape) => (shape.channels, shape.height, shape.width),
            Self::Text { .. } => (0, 0, 0),
        }
    }

    /// What the data is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Images(_) => Kind::Images,
            Self::Text { .. } => Kind::Text,
        }
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: batch norm uses the batch's statistics, and dropout drops.
    Train {
        /// Which evaluation of the loss within the step this is. SAM evaluates twice; running statistics move in the first
        /// evaluation (0) only.
        evaluation: usize,
    },
    /// Measuring: batch norm uses the running statistics, and nothing is dropped.
    Evaluate,
}

/// What dropout's masks are drawn from: they are a function of these and of the layer's name, so all evaluations within a
/// step drop the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// The trial's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
}

/// A forward pass: what it is for, who watches, and whose operations compute it.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What it is for.
    pub mode: Mode,
    /// What the layers put out goes here.
    pub probe: Option<&'a Probe>,
    /// For training a model with dropout.
    pub noise: Option<Noise>,
    /// What it is computed by.
    pub ops: Operations,
    /// The type of what the layers put out.
    pub dtype: DType,
}

impl<'a> Pass<'a> {
    /// To measure.
    pub fn evaluate() -> Self {
        Self { mode: Mode::Evaluate, probe: None, noise: None, ops: Operations::default(), dtype: DType::F32 }
    }

    /// To train: the evaluation of this number within a step, from 0.
    pub fn train(evaluation: usize) -> Self {
        Self { mode: Mode::Train { evaluation }, ..Self::evaluate() }
    }

    /// The same, watched by `probe`.
    pub fn with_probe(self, probe: &'a Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// The same, with dropout drawn from `noise`.
    pub fn with_noise(self, noise: Noise) -> Self {
        Self { noise: Some(noise), ..self }
    }

    /// The same, by these operations.
    pub fn with_ops(self, ops: Operations) -> Self {
        Self { ops, ..self }
    }

    /// The same, with layers that put out this type.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The mean loss of `model` for inputs `x` and their labels, and the logits; both are f32.
    ///
    /// # Errors
    /// When candle fails, or shapes do not fit.
    pub fn loss(&self, model: &dyn Model, x: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = if x.dtype().is_float() { x.to_dtype(self.dtype)? } else { x.clone() };
        let logits = model.forward(&x, self)?.to_dtype(DType::F32)?;
        Ok((self.ops.cross_entropy(&logits, labels)?, logits))
    }

    /// Shows what `layer` puts out to the probe, if there is one.
    fn activation(&self, layer: &str, x: &Tensor) -> Result<()> {
        self.probe.map_or(Ok(()), |probe| probe.activation(layer, x))
    }
}

/// A classifier of images, or of the characters that may come next.
pub trait Model: Send {
    /// The logits of images (n, channels, height, width) of the pass's type: (n, classes); or of tokens (n, context) of type u32:
    /// (n * context, vocabulary), the predictions of the tokens that follow each of them. They are of the pass's type.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor>;
}

/// How a model is built.
#[derive(Clone, Copy, Debug)]
pub enum Build {
    /// For images of a shape.
    Images(fn(&ModelConfig, ImageShape, VarBuilder) -> Result<Box<dyn Model>>),
    /// For this many different tokens.
    Text(fn(&ModelConfig, usize, VarBuilder) -> Result<Box<dyn Model>>),
}

/// What training a model takes at least, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Least {
    /// Parameters.
    pub parameters: u64,
    /// What the layers put out for an example and keep for the gradients.
    pub kept: u64,
}

/// A model that can be chosen by name.
#[derive(Debug)]
pub struct ModelSpec {
    /// The name, as in `--model NAME`.
    pub name: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    /// What can be set, as in `--model NAME:KEY=VALUE,..`.
    pub keys: &'static [Key],
    /// What is wrong with these values together, if anything.
    pub check: fn(&ModelConfig) -> std::result::Result<(), String>,
    /// Creates its layers.
    pub build: Build,
    /// What training takes at least, before anything is created.
    pub least: fn(&ModelConfig, &Shape) -> Least,
}

/// What training convolutions takes at least: each is given by its inputs, outputs, the sides of its kernel and of the images
/// that it puts out in pixels, and how many tensors of them are kept.
fn least_of_convolutions(convolutions: impl IntoIterator<Item = (usize, usize, usize, usize, u64)>) -> Least {
    let mut least = Least { parameters: 0, kept: 0 };
    for (inputs, outputs, kernel, pixels, tensors) in convolutions {
        least.parameters += (inputs * outputs * kernel * kernel) as u64;
        least.kept += (outputs * pixels) as u64 * tensors;
    }
    least
}

impl ModelSpec {
    /// What the model takes.
    pub fn kind(&self) -> Kind {
        match self.build {
            Build::Images(_) => Kind::Images,
            Build::Text(_) => Kind::Text,
        }
    }
}

/// All models, simplest first.
pub fn all() -> &'static [ModelSpec] {
    const ALWAYS: fn(&ModelConfig) -> std::result::Result<(), String> = |_| Ok(());
    &[
        ModelSpec {
            name: "mlp",
            doc: "two hidden layers of 128 and 64 with ReLU",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(mlp::Mlp::build),
            least: mlp::least,
        },
        ModelSpec {
            name: "cnn",
            doc: "three 3x3 convolutions of 16, 32 and 64 channels with ReLU and max pooling",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(cnn::Cnn::build),
            least: cnn::least,
        },
        ModelSpec {
            name: "cnn4",
            doc: "four 3x3 convolutions of 32, 64, 128 and 128 channels with ReLU, two of stride 2, and the global average",
            keys: cnn4::KEYS,
            check: ALWAYS,
            build: Build::Images(cnn4::Cnn4::build),
            least: cnn4::least,
        },
        ModelSpec {
            name: "resnet20",
            doc: "He et al.'s residual network for CIFAR with batch norm, 0.27 million parameters",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(resnet::ResNet::build_20),
            least: resnet::least_20,
        },
        ModelSpec {
            name: "resnet18",
            doc: "He et al.'s residual network with batch norm and 64 to 512 channels, 11.2 million parameters",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(resnet::ResNet::build_18),
            least: resnet::least_18,
        },
        ModelSpec {
            name: "gpt",
            doc: "a transformer that predicts the next character, 0.80 million parameters",
            keys: gpt::KEYS,
            check: gpt::check,
            build: Build::Text(gpt::Gpt::build),
            least: gpt::least,
        },
    ]
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
        let model = parse(name).unwrap().build(&Shape::Images(shape), parameters.builder(&Device::Cpu)).unwrap();
        (parameters, model)
    }

    /// The models of images, in all their forms.
    fn image_models() -> impl Iterator<Item = &'static str> {
        let images = all().iter().filter(|model| model.kind() == Kind::Images);
        images.map(|model| model.name).chain(["cnn4:norm=batch"])
    }

    /// Images that are no two alike.
    fn images(n: usize, shape: ImageShape) -> Tensor {
        let dims = (n, shape.channels, shape.height, shape.width);
        let len = n * shape.channels * shape.height * shape.width;
        let pixels: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        Tensor::from_vec(pixels, dims, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_training_takes_at_least_counts_nearly_all_parameters() {
        let text = Shape::Text { vocabulary: 65, context: 32 };
        let models = image_models().map(|name| (name, Shape::Images(CIFAR10)));
        for (name, shape) in
            models.chain([("gpt:context=32,layers=3", text), ("gpt:context=32,norm=post,width=96", text)])
        {
            let (config, parameters) = (parse(name).unwrap(), Parameters::new(0));
            config.build(&shape, parameters.builder(&Device::Cpu)).unwrap();
            let (least, count) = (config.least(&shape), parameters.count() as u64);
            // Those of norms, biases and the classifier of images are few.
            assert!(least.parameters <= count && least.parameters > count * 9 / 10, "{name}: {least:?} of {count}");
        }
    }

    /// By hand: weights and biases of each layer. ResNet-20 has 0.27 M in He et al.'s table 6.
    #[test]
    fn parameter_counts() {
        let mlp = |pixels: usize| (pixels + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10;
        let cnn = |channels: usize, last: usize| {
            (channels * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (last * 64 + 1) * 10
        };
        let cnn4 = |channels: usize, others: usize| {
            (channels * 9 + others) * 32
                + (32 * 9 + others) * 64
                + (64 * 9 + 128 * 9 + 2 * others) * 128
                + (128 + 1) * 10
        };
        // Each convolution has no bias, and a norm of two parameters per channel.
        let conv = |kernel: usize, from: usize, to: usize| kernel * kernel * from * to + 2 * to;
        let same = |channels| conv(3, channels, channels);
        let stage = |from, to| conv(3, from, to) + conv(1, from, to) + 3 * same(to);
        let stages = 4 * same(64) + stage(64, 128) + stage(128, 256) + stage(256, 512);
        let resnet18 = conv(3, 3, 64) + stages + (512 + 1) * 10;
        for (name, shape, count) in [
            ("mlp", DIGITS, mlp(64)),
            ("mlp", CIFAR10, mlp(3072)),
            ("cnn", DIGITS, cnn(1, 1)),
            ("cnn", FASHION_MNIST, cnn(1, 9)),
            ("cnn", CIFAR10, cnn(3, 16)),
            ("cnn4", CIFAR10, cnn4(3, 1)),
            ("cnn4:norm=batch", DIGITS, cnn4(1, 2)),
            ("resnet20", CIFAR10, 269_722),
            ("resnet20", DIGITS, 269_722 - 2 * 16 * 9),
            ("resnet18", CIFAR10, resnet18),
        ] {
            assert_eq!(build(name, shape, 0).0.count(), count, "{name} {shape:?}");
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for model in image_models() {
            for shape in [DIGITS, FASHION_MNIST] {
                let (parameters, network) = build(model, shape, 0);
                let logits = network.forward(&images(4, shape), &Pass::train(0)).unwrap();
                assert_eq!(logits.dims(), [4, 10]);
                let labels = Tensor::new(&[0u32, 3, 9, 1], &Device::Cpu).unwrap();
                let grads = cross_entropy(&logits, &labels).unwrap().backward().unwrap();
                for (name, var) in parameters.trainable() {
                    let grad = grads.get(&var).unwrap_or_else(|| panic!("{model}: {name} has no gradient"));
                    let norm = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                    assert!(norm > 0.0 && norm.is_finite(), "{model} {shape:?}: {name} has the gradient {norm}");
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
        let first = network.forward(&x, &Pass::train(0)).unwrap();
        let moved = buffers();
        assert!(moved.iter().zip(&fresh).all(|(moved, fresh)| moved != fresh));
        let second = network.forward(&x, &Pass::train(1)).unwrap();
        assert_eq!(values(&first), values(&second));
        let evaluated = network.forward(&x, &Pass::evaluate()).unwrap();
        assert_ne!(values(&first), values(&evaluated));
        assert_eq!(buffers(), moved);
    }

    /// What a probe sees are all layers that have parameters, in the order of the forward pass.
    #[test]
    fn a_probe_sees_every_layer() {
        for model in image_models() {
            let (parameters, network) = build(model, DIGITS, 0);
            let probe = Probe::new();
            let watched = network.forward(&images(4, DIGITS), &Pass::evaluate().with_probe(&probe)).unwrap();
            let logits = network.forward(&images(4, DIGITS), &Pass::evaluate()).unwrap();
            assert_eq!(watched.to_vec2::<f32>().unwrap(), logits.to_vec2::<f32>().unwrap());
            let layers = probe.layers();
            let max = logits.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert_eq!(layers.last().unwrap().activation_max, Some(max.into()), "{model}");
            assert!(layers.iter().all(|layer| layer.activation_max > Some(0.0) && layer.attention_logit_max.is_none()));
            let mut seen: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
            seen.sort_unstable();
            let parameters = parameters.trainable();
            let mut expected: Vec<&str> = parameters.iter().map(|(name, _)| layer_of(name)).collect();
            expected.dedup();
            assert_eq!(seen, expected, "{model}");
        }
    }
}
