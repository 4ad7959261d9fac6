//! A network that learns CIFAR-10 in few passes, after airbench94 (Jordan 2024, arXiv:2404.00498).

use super::{
    forward::{ForwardContext, Mode, Model},
    layers::{BatchNorm, BatchNormSettings, conv3x3, convolve},
    shape::{ImageShape, Shape},
    spec::{Allowed, Key, Least, ModelConfig, Value, least_of_convolutions},
};
use candle_core::{DType, Device, IndexOp, Result, Tensor, Var};
use candle_nn::{Conv2d, Init, VarBuilder};
use optim::matrix;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "width",
        doc: "channels of the first block; the two others have four times as many",
        default: Value::Whole(64),
        allowed: Allowed::Whole(4, 512),
    },
    Key {
        name: "smoothing",
        doc: "what share of each label goes to all classes alike, in training",
        default: Value::Number(0.2),
        allowed: Allowed::Share,
    },
    Key {
        name: "views",
        doc: "what is evaluated: the mean of the logits of the image and its mirror image, the image alone, or the two also moved by a pixel",
        default: Value::Word("mirrored"),
        allowed: Allowed::Words(&["mirrored", "one", "moved"]),
    },
];

/// A convolution of 2x2 whose filters make the training images' patches white and do not learn, with a bias that does; three blocks
/// (convolution, max pooling, batch norm, gelu, convolution, batch norm, gelu); the maximum over the image; a linear classifier, divided by 9.
pub(super) struct SpeedNet {
    whitening: Whitening,
    blocks: Vec<Block>,
    classifier: Tensor,
    smoothing: f64,
    views: Views,
}

/// What is evaluated of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Views {
    One,
    /// And its mirror image.
    Mirrored,
    /// And these, moved by a pixel up and left, and down and right, with half the weight of the others together.
    Moved,
}

/// The sides of a patch.
const PATCH: usize = 2;

/// What the logits are multiplied by.
const SCALE: f64 = 1.0 / 9.0;

/// The running statistics follow the batches sooner than PyTorch's, since there are few; the scale does not learn, and under gradient
/// descent the shift learns 64 times as fast.
const NORM: BatchNormSettings = BatchNormSettings { eps: 1e-12, momentum: 0.4, learns_scale: false, bias_scale: 8.0 };

pub(super) fn least(config: &ModelConfig, shape: &Shape) -> Least {
    let (channels, height, width) = shape.image();
    let (mut height, mut width, mut inputs) = (height - 1, width - 1, Whitening::outputs(channels));
    let mut convolutions = Vec::new();
    for outputs in widths(config) {
        convolutions.push((inputs, outputs, 3, height * width, 1));
        (height, width) = pooled(height, width);
        convolutions.push((outputs, outputs, 3, height * width, 3));
        inputs = outputs;
    }
    least_of_convolutions(convolutions)
}

fn widths(config: &ModelConfig) -> [usize; 3] {
    let Some(Value::Whole(width)) = config.get("width") else { unreachable!("speednet has a width") };
    [width, 4 * width, 4 * width]
}

/// Images too small for it are not pooled.
fn pooled(height: usize, width: usize) -> (usize, usize) {
    if height.min(width) < 2 { (height, width) } else { (height / 2, width / 2) }
}

impl SpeedNet {
    pub(super) fn build(config: &ModelConfig, shape: ImageShape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        let mut channels = Whitening::outputs(shape.channels);
        let mut blocks = Vec::new();
        for (index, outputs) in widths(config).into_iter().enumerate() {
            blocks.push(Block::new(channels, outputs, format!("block{}", index + 1), &vb)?);
            channels = outputs;
        }
        Ok(Box::new(Self {
            whitening: Whitening::new(shape.channels, &vb.pp("whitening"))?,
            blocks,
            classifier: vb.pp("classifier").get_with_hints((shape.classes, channels), "weight", DEFAULT)?,
            smoothing: if let Some(Value::Number(smoothing)) = config.get("smoothing") { smoothing } else { 0.0 },
            views: match config.get("views") {
                Some(Value::Word("one")) => Views::One,
                Some(Value::Word("moved")) => Views::Moved,
                _ => Views::Mirrored,
            },
        }))
    }

    fn logits(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let mut x = self.whitening.forward(x, pass)?;
        pass.activation("whitening", &x)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
            pass.activation(&block.name, &x)?;
        }
        pass.ops.linear(&pass.ops.global_max(&x)?, &self.classifier)? * SCALE
    }
}

impl Model for SpeedNet {
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let views = if pass.mode == Mode::Evaluate { self.views } else { Views::One };
        // What is moved is not watched.
        let unwatched = ForwardContext { probe: None, ..*pass };
        let mirrored = |x: &Tensor, pass: &ForwardContext| -> Result<Tensor> {
            (self.logits(x, pass)? + self.logits(&x.flip(&[3])?, &unwatched)?)? * 0.5
        };
        let logits = match views {
            Views::One => self.logits(x, pass)?,
            Views::Mirrored => mirrored(x, pass)?,
            Views::Moved => {
                let moved = (mirrored(&moved(x, 0)?, &unwatched)? + mirrored(&moved(x, 2)?, &unwatched)?)?;
                ((mirrored(x, pass)? + (moved * 0.5)?)? * 0.5)?
            }
        };
        pass.activation("classifier", &logits)?;
        Ok(logits)
    }

    fn views(&self) -> usize {
        match self.views {
            Views::One => 1,
            Views::Mirrored => 2,
            Views::Moved => 6,
        }
    }

    fn smoothing(&self) -> f64 {
        self.smoothing
    }

    fn examples_to_begin(&self) -> usize {
        EXAMPLES
    }

    fn begin(&self, examples: &Tensor) -> Result<()> {
        self.whitening.fit(examples)
    }
}

/// PyTorch's: uniform with the bound `1 / sqrt(inputs)`.
const DEFAULT: Init = candle_nn::init::DEFAULT_KAIMING_UNIFORM;

/// Training images whose patches are made white.
const EXAMPLES: usize = 5_000;

/// The window that begins at row and column `first` of `x` with a border of a pixel, its mirror image.
fn moved(x: &Tensor, first: usize) -> Result<Tensor> {
    let mut x = x.clone();
    for dim in [2, 3] {
        let len = x.dim(dim)?;
        let (before, after) = (x.narrow(dim, 1.min(len - 1), 1)?, x.narrow(dim, len.saturating_sub(2), 1)?);
        x = Tensor::cat(&[&before, &x, &after], dim)?.narrow(dim, first, len)?.contiguous()?;
    }
    Ok(x)
}

struct Whitening {
    filters: Var,
    bias: Tensor,
}

impl Whitening {
    /// Added to the variances, so that what hardly varies is not noise alone.
    const EPS: f64 = 5e-4;

    /// Each principal direction of the patches, and its negative.
    fn outputs(channels: usize) -> usize {
        2 * channels * PATCH * PATCH
    }

    fn new(channels: usize, vb: &VarBuilder) -> Result<Self> {
        let outputs = Self::outputs(channels);
        let filters = vb.get_with_hints((outputs, channels, PATCH, PATCH), "filters", DEFAULT)?;
        Ok(Self { filters: Var::from_tensor(&filters)?, bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))? })
    }

    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let filters = self.filters.as_detached_tensor().to_dtype(x.dtype())?;
        let bias = &self.bias;
        pass.ops.gelu(&pass.ops.conv2d_bias(x, &filters, bias, false, ops::Conv2dOptions::default())?)
    }

    /// Sets the filters to the directions of the patches' covariance, each divided by its standard deviation.
    fn fit(&self, images: &Tensor) -> Result<()> {
        let images = images.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (_, channels, height, width) = images.dims4()?;
        let len = channels * PATCH * PATCH;
        let shifted = (0..len).map(|index| {
            let (channel, dy, dx) = (index / (PATCH * PATCH), index / PATCH % PATCH, index % PATCH);
            images.i((.., channel, dy..height + 1 - PATCH + dy, dx..width + 1 - PATCH + dx))?.flatten_all()
        });
        let patches = Tensor::stack(&shifted.collect::<Result<Vec<_>>>()?, 0)?;
        let covariance = (patches.matmul(&patches.t()?)? / patches.dim(1)? as f64)?;
        let vectors = matrix::eigenvectors(&covariance.unsqueeze(0)?).map_err(candle_core::Error::wrap)?.squeeze(0)?;
        // The variance along each: the diagonal of V^T C V.
        let variances = (covariance.matmul(&vectors)? * &vectors)?.sum(0)?;
        let scaled = vectors.t()?.broadcast_div(&(variances + Self::EPS)?.sqrt()?.unsqueeze(1)?)?;
        let filters = Tensor::cat(&[&scaled, &scaled.neg()?], 0)?.reshape(self.filters.shape())?;
        self.filters.set(&filters.to_dtype(self.filters.dtype())?.to_device(self.filters.device())?)
    }
}

struct Block {
    name: String,
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
}

impl Block {
    fn new(inputs: usize, outputs: usize, name: String, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp(&name);
        let conv = |inputs, name: &str| {
            let conv = conv3x3(inputs, outputs, 1, vb.pp(name))?;
            keep_inputs(&conv)?;
            Result::Ok(conv)
        };
        Ok(Self {
            conv1: conv(inputs, "conv1")?,
            norm1: BatchNorm::with(outputs, NORM, vb.pp("norm1"))?,
            conv2: conv(outputs, "conv2")?,
            norm2: BatchNorm::with(outputs, NORM, vb.pp("norm2"))?,
            name,
        })
    }

    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let x = convolve(&self.conv1, x, pass)?;
        let (_, _, height, width) = x.dims4()?;
        let x = if pooled(height, width) == (height, width) { x } else { pass.ops.max_pool2(&x)? };
        let x = pass.ops.gelu(&self.norm1.normalise(&x, pass)?)?;
        pass.ops.gelu(&self.norm2.convolve(&self.conv2, &x, pass)?)
    }
}

/// Lets the first filters of a fresh convolution give the inputs themselves: what a block gets goes through it from the start.
fn keep_inputs(conv: &Conv2d) -> Result<()> {
    let weight = Var::from_tensor(conv.weight())?;
    let (outputs, inputs, height, width) = weight.dims4()?;
    let kept = outputs.min(inputs);
    let mut values = vec![0f32; kept * inputs * height * width];
    for channel in 0..kept {
        values[((channel * inputs + channel) * height + height / 2) * width + width / 2] = 1.0;
    }
    let values = Tensor::from_vec(values, (kept, inputs, height, width), weight.device())?;
    weight.slice_set(&values, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::models::{parameters::Parameters, registry::parse};

    const SHAPE: ImageShape = ImageShape { channels: 3, height: 9, width: 8, classes: 10 };

    fn images(n: usize) -> Tensor {
        let len = n * 3 * 72;
        let pixels: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin() + (i % 7) as f32 * 0.2).collect();
        Tensor::from_vec(pixels, (n, 3, 9, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn patches_are_white_behind_the_first_layer_and_its_filters_do_not_learn() {
        let parameters = Parameters::new(0);
        let whitening = Whitening::new(3, &parameters.builder(&Device::Cpu).pp("whitening")).unwrap();
        assert_eq!(parameters.buffers().len(), 1);
        assert_eq!(parameters.trainable().len(), 1);
        let x = images(40);
        whitening.fit(&x).unwrap();
        let y = x.conv2d(&whitening.filters, 0, 1, 1, 1).unwrap().narrow(1, 0, 12).unwrap();
        let rows = y.transpose(0, 1).unwrap().contiguous().unwrap().reshape((12, ())).unwrap();
        let n = rows.dim(1).unwrap() as f64;
        let covariance = (rows.matmul(&rows.t().unwrap()).unwrap() / n).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in covariance.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                // EPS takes a little of what varies little.
                let is_near = if i == j { (0.9..1.0001).contains(value) } else { value.abs() < 1e-3 };
                assert!(is_near, "{i} {j}: {value}");
            }
        }
    }

    #[test]
    fn a_mirror_image_is_evaluated_alike_and_trained_on_as_it_is() {
        for (text, is_alike) in
            [("speednet:width=8", true), ("speednet:width=8,views=one", false), ("speednet:width=8,views=moved", false)]
        {
            let parameters = Parameters::new(0);
            let shape = Shape::Images(SHAPE);
            let model = parse(text).unwrap().build(&shape, parameters.builder(&Device::Cpu)).unwrap();
            let x = images(4);
            let mirrored = x.flip(&[3]).unwrap();
            let apart = |pass: &ForwardContext| {
                let [a, b] = [&x, &mirrored].map(|x| model.forward(x, pass).unwrap());
                (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
            };
            assert_eq!(apart(&ForwardContext::evaluate()) < 1e-5, is_alike, "{text}");
            assert!(apart(&ForwardContext::train(0)) > 1e-3, "{text}");
        }
    }

    #[test]
    fn a_fresh_convolution_gives_its_inputs() {
        let parameters = Parameters::new(0);
        let block = Block::new(3, 8, "block1".to_owned(), &parameters.builder(&Device::Cpu)).unwrap();
        let x = images(2);
        let y = convolve(&block.conv1, &x, &ForwardContext::evaluate()).unwrap().narrow(1, 0, 3).unwrap();
        let apart = (x - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 1e-6, "{apart}");
    }
}
