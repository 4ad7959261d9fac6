//! Both kinds of operations give the same models.

use super::*;
use crate::problem::models::{
    forward::{ForwardContext, Model, Noise},
    parameters::Parameters,
    registry,
    shape::{ImageShape, Shape},
};
use candle_core::{DType, Device, Var};
use candle_nn::Optimizer;

/// Every model, in each form that runs on other operations.
const MODELS: [&str; 10] = [
    "mlp",
    "cnn",
    "cnn4",
    "cnn4:norm=batch",
    "resnet20",
    "resnet18",
    "speednet:width=8",
    "gpt:layers=2,width=32,context=16",
    "gpt:layers=2,width=32,context=16,norm=post",
    "gpt:layers=2,width=32,context=16,dropout=0.1",
];
/// Odd, so that a row and a column are left over wherever the size is halved.
const IMAGES: ImageShape = ImageShape { channels: 3, height: 13, width: 13, classes: 5 };
const VOCABULARY: usize = 11;
const N: usize = 6;

struct Trained {
    ops: Operations,
    parameters: Parameters,
    model: Box<dyn Model>,
    x: Tensor,
    labels: Tensor,
}

impl Trained {
    fn new(text: &str, ops: Operations) -> Self {
        let (config, parameters, device) = (registry::parse(text).unwrap(), Parameters::new(3), Device::Cpu);
        let label = |classes: usize| move |i: usize| ((i * i + i) % classes) as u32;
        let (shape, x, labels): (_, _, Vec<u32>) = match config.context() {
            Some(context) => {
                let tokens = (0..N * context).map(|i| (i * i % VOCABULARY) as u32);
                let x = Tensor::from_iter(tokens, &device).unwrap().reshape((N, context)).unwrap();
                let labels = (0..N * context).map(label(VOCABULARY)).collect();
                (Shape::Text { vocabulary: VOCABULARY, context }, x, labels)
            }
            None => {
                let dims = (N, IMAGES.channels, IMAGES.height, IMAGES.width);
                let pixels = (0..N * IMAGES.channels * IMAGES.height * IMAGES.width).map(|i| ((i * i) as f32).sin());
                let x = Tensor::from_iter(pixels, &device).unwrap().reshape(dims).unwrap();
                (Shape::Images(IMAGES), x, (0..N).map(label(IMAGES.classes)).collect())
            }
        };
        let model = config.build(&shape, parameters.builder(&device)).unwrap();
        Self { ops, parameters, model, x, labels: Tensor::new(labels, &device).unwrap() }
    }

    fn loss(&self, step: u64) -> Tensor {
        self.loss_in(DType::F32, step)
    }

    fn loss_in(&self, dtype: DType, step: u64) -> Tensor {
        let pass = ForwardContext::train(0).with_ops(self.ops).with_noise(Noise { seed: 0, step }).with_dtype(dtype);
        pass.loss(&*self.model, &self.x, &self.labels).unwrap().0
    }

    fn variables(&self) -> Vec<Var> {
        self.parameters.trainable().into_iter().map(|(_, var)| var).collect()
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// The largest difference, over the largest absolute value.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |max, x| f64::max(max, x.abs()));
    largest(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / largest(&mut a.iter().copied()).max(1e-30)
}

#[test]
fn every_model_is_here() {
    for spec in registry::all() {
        assert!(MODELS.iter().any(|text| text.split(':').next() == Some(spec.name)), "{}", spec.name);
    }
}

/// Losses within 1e-6 of each other, gradients within 2e-5 of their largest value, running statistics within 5e-6: f32's rounding,
/// of Winograd's method a few times that, and the eight digits of candle's gelu.
#[test]
fn candles_operations_give_the_same_losses_and_gradients() {
    for text in MODELS {
        let [ours, candles] = [Operations::Descent, Operations::Candle].map(|by| Trained::new(text, by));
        let [loss, expected] = [ours.loss(0), candles.loss(0)];
        assert!(difference(&expected, &loss) < 1e-6, "{text}: the loss {loss} is not {expected}");
        let [grads, expected] = [loss, expected].map(|loss| loss.backward().unwrap());
        let variables = ours.parameters.trainable().into_iter().zip(candles.parameters.trainable());
        for ((name, var), (_, candles)) in variables {
            let difference = difference(expected.get(&candles).unwrap(), grads.get(&var).unwrap());
            assert!(difference < 2e-5, "{text}: the gradient of {name} differs by {difference:e}");
        }
        for ((name, buffer), (_, candles)) in ours.parameters.buffers().iter().zip(candles.parameters.buffers()) {
            let difference = difference(&candles, buffer);
            assert!(difference < 5e-6, "{text}: {name} differs by {difference:e}");
        }
        let evaluated = [&ours, &candles].map(|trained| {
            let pass = ForwardContext::evaluate().with_ops(trained.ops);
            trained.model.forward(&trained.x, &pass).unwrap()
        });
        let difference = difference(&evaluated[1], &evaluated[0]);
        assert!(difference < 1e-5, "{text}: evaluated logits differ by {difference:e}");
    }
}

/// bf16 has 8 bits, so that a number is rounded by up to 2^-9 of it at each layer. Gradients' roundings add up over all layers, and
/// some numbers change sides at a rectifier: the norm of the whole difference is 0.014 of the gradient in the shallow cnn, and 0.2 in
/// resnet20. That of a gradient that is unrelated would be 1 or more.
#[test]
fn mixed_precision_is_near_single_precision_and_its_gradients_are_single() {
    for text in MODELS {
        let [single, mixed] = [DType::F32, DType::BF16].map(|dtype| {
            let trained = Trained::new(text, Operations::Descent);
            (trained.loss_in(dtype, 0), trained.parameters)
        });
        assert_eq!(mixed.0.dtype(), DType::F32, "{text}");
        let distance = difference(&single.0, &mixed.0);
        assert!(distance > 0.0 && distance < 0.01, "{text}: the losses differ by {distance:e}");
        let grads = [&single, &mixed].map(|(loss, parameters)| {
            let grads = loss.backward().unwrap();
            let gradient = |(name, var): (String, Var)| (name, grads.get(&var).unwrap().clone());
            parameters.trainable().into_iter().map(gradient).collect::<Vec<_>>()
        });
        let (mut error, mut whole) = (0.0, 0.0);
        for ((name, single), (_, mixed)) in grads[0].iter().zip(&grads[1]) {
            assert_eq!(mixed.dtype(), DType::F32, "{text}: the gradient of {name}");
            let squares = |tensor: &Tensor| values(tensor).iter().map(|x| x * x).sum::<f64>();
            error += squares(&(single - mixed).unwrap());
            whole += squares(single);
        }
        let distance = f64::sqrt(error / whole);
        assert!(distance < 0.3, "{text}: the gradients differ by {distance:e}");
        for (name, buffer) in mixed.1.buffers() {
            assert_eq!(buffer.dtype(), DType::F32, "{text}: {name}");
        }
    }
}

/// Ten updates of SGD: losses differ by less than 1e-4 of the first, and in all the loss falls.
#[test]
fn training_goes_the_same_way() {
    for text in MODELS {
        let losses = [Operations::Descent, Operations::Candle].map(|by| {
            let trained = Trained::new(text, by);
            let rule = optim::by_name("sgd:lr=0.02,momentum=0.9").unwrap();
            let mut optimizer = optim::AnyOptimizer::new(trained.variables(), rule).unwrap();
            let mut step = |step| {
                let loss = trained.loss(step);
                optimizer.backward_step(&loss).unwrap();
                values(&loss)[0]
            };
            (0..10).map(&mut step).collect::<Vec<f64>>()
        });
        for (step, (ours, candles)) in losses[0].iter().zip(&losses[1]).enumerate() {
            let largest = 1e-4 * losses[1][0];
            assert!((ours - candles).abs() < largest, "{text}: at step {step} {ours} is not {candles}");
        }
        assert!(losses[0][9] < losses[0][0], "{text}: {:?}", losses[0]);
    }
}
