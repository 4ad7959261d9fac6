//! What holds of every model.

use super::{
    forward::{ForwardContext, Model},
    parameters::Parameters,
    probe::{Probe, layer_of},
    registry::{all, parse},
    shape::{ImageShape, Shape},
};
use crate::problem::data::spec::Kind;
use candle_core::{Device, Tensor};
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
    images.map(|model| model.name).chain(["cnn4:norm=batch", "speednet:width=8,views=one"])
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
    for (name, shape) in models.chain([("gpt:context=32,layers=3", text), ("gpt:context=32,norm=post,width=96", text)])
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
        (channels * 9 + others) * 32 + (32 * 9 + others) * 64 + (64 * 9 + 128 * 9 + 2 * others) * 128 + (128 + 1) * 10
    };
    // Each convolution has no bias, and a norm of two parameters per channel.
    let conv = |kernel: usize, from: usize, to: usize| kernel * kernel * from * to + 2 * to;
    let same = |channels| conv(3, channels, channels);
    let stage = |from, to| conv(3, from, to) + conv(1, from, to) + 3 * same(to);
    let stages = 4 * same(64) + stage(64, 128) + stage(128, 256) + stage(256, 512);
    let resnet18 = conv(3, 3, 64) + stages + (512 + 1) * 10;
    let block = |from: usize, to: usize| 9 * from * to + to + 9 * to * to + to;
    let speednet = |channels: usize, width: usize| {
        let blocks = block(8 * channels, width) + block(width, 4 * width) + block(4 * width, 4 * width);
        8 * channels + blocks + 4 * width * 10
    };
    for (name, shape, count) in [
        ("speednet", CIFAR10, speednet(3, 64)),
        ("speednet:width=16", DIGITS, speednet(1, 16)),
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
            let logits = network.forward(&images(4, shape), &ForwardContext::train(0)).unwrap();
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
    let first = network.forward(&x, &ForwardContext::train(0)).unwrap();
    let moved = buffers();
    assert!(moved.iter().zip(&fresh).all(|(moved, fresh)| moved != fresh));
    let second = network.forward(&x, &ForwardContext::train(1)).unwrap();
    assert_eq!(values(&first), values(&second));
    let evaluated = network.forward(&x, &ForwardContext::evaluate()).unwrap();
    assert_ne!(values(&first), values(&evaluated));
    assert_eq!(buffers(), moved);
}

/// What a probe sees are all layers that have parameters, in the order of the forward pass.
#[test]
fn a_probe_sees_every_layer() {
    for model in image_models() {
        let (parameters, network) = build(model, DIGITS, 0);
        let probe = Probe::new();
        let watched = network.forward(&images(4, DIGITS), &ForwardContext::evaluate().with_probe(&probe)).unwrap();
        let logits = network.forward(&images(4, DIGITS), &ForwardContext::evaluate()).unwrap();
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
