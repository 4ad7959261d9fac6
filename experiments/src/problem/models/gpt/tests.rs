//! The transformer against PyTorch's numbers, and what its keys do.

use super::*;
use crate::problem::models::{
    forward::Noise,
    parameters::Parameters,
    probe::{Probe, layer_of},
    registry::parse,
    shape::Shape,
};
use candle_core::{Device, backprop::GradStore};
use candle_nn::loss::cross_entropy;
use serde::Deserialize;
use std::collections::BTreeMap;

fn build(text: &str, vocabulary: usize) -> (Parameters, Box<dyn Model>) {
    let config = parse(text).unwrap();
    let parameters = Parameters::new(0);
    let shape = Shape::Text { vocabulary, context: config.context().unwrap() };
    let model = config.build(&shape, parameters.builder(&Device::Cpu)).unwrap();
    (parameters, model)
}

/// `i * i mod vocabulary`
fn tokens(n: usize, context: usize, vocabulary: usize) -> Tensor {
    let tokens: Vec<u32> = (0..n * context).map(|i| (i * i % vocabulary) as u32).collect();
    Tensor::from_vec(tokens, (n, context), &Device::Cpu).unwrap()
}

/// `(i * i + i) mod vocabulary`
fn targets(n: usize, vocabulary: usize) -> Tensor {
    Tensor::from_vec((0..n).map(|i| ((i * i + i) % vocabulary) as u32).collect(), n, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.to_vec2().unwrap()
}

/// By hand, without biases: nanoGPT's 0.80 million for 65 characters.
#[test]
fn parameter_counts() {
    let block = |width: usize| width + 3 * width * width + width * width + width + 2 * 4 * width * width;
    for (text, count) in [
        ("gpt", (65 + 64) * 128 + 4 * block(128) + 128),
        ("gpt:norm=post", (65 + 64) * 128 + 4 * block(128)),
        ("gpt:layers=6,heads=6,width=384,context=256", (65 + 256) * 384 + 6 * block(384) + 384),
    ] {
        assert_eq!(build(text, 65).0.count(), count, "{text}");
    }
    assert_eq!(build("gpt", 65).0.count(), 804_096);
}

#[test]
fn initial_weights_have_the_deviations_of_their_norms_place() {
    let pre = |name: &str| match name {
        name if name.contains("norm") => 1.0,
        name if name.contains("projection") || name.contains("contract") => 0.003_125f64.sqrt() / 8f64.sqrt(),
        _ => 0.003_125f64.sqrt(),
    };
    let post = |name: &str| match name {
        name if name.contains("norm") => 1.0,
        name if name.contains("mlp") => (2.0 / (128.0 + 512.0f64)).sqrt(),
        _ => 1.0 / 128f64.sqrt(),
    };
    for (text, expected) in [("gpt", pre as fn(&str) -> f64), ("gpt:norm=post", post)] {
        let (parameters, _) = build(text, 65);
        for (name, var) in parameters.trainable() {
            let values = values(&var);
            let deviation = (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt();
            let expected = expected(&name);
            // Five standard errors.
            let tolerance = 5.0 / (2.0 * values.len() as f64).sqrt();
            assert!((deviation / expected - 1.0).abs() < tolerance, "{text}: {name}: {deviation} is not {expected}");
        }
    }
    // Nothing is known yet: the loss is that of guessing.
    let loss = cross_entropy(
        &build("gpt", 65).1.forward(&tokens(2, 64, 65), &ForwardContext::evaluate()).unwrap(),
        &targets(128, 65),
    );
    let loss = loss.unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - 65f32.ln()).abs() < 0.2, "{loss}");
}

#[test]
fn every_parameter_gets_a_gradient() {
    for text in ["gpt:layers=2,width=32", "gpt:layers=2,width=32,norm=post", "gpt:layers=2,width=32,dropout=0.1"] {
        let (parameters, model) = build(text, 7);
        let pass = ForwardContext::train(0).with_noise(Noise { seed: 0, step: 1 });
        let logits = model.forward(&tokens(3, 64, 7), &pass).unwrap();
        assert_eq!(logits.dims(), [3 * 64, 7]);
        let grads = cross_entropy(&logits, &targets(3 * 64, 7)).unwrap().backward().unwrap();
        for (name, var) in parameters.trainable() {
            let grad = grads.get(&var).unwrap_or_else(|| panic!("{text}: {name} has no gradient"));
            assert!(grad.is_contiguous(), "{text}: {name}");
            let norm = values(grad).iter().map(|x| x * x).sum::<f32>();
            assert!(norm > 0.0 && norm.is_finite(), "{text}: {name} has the gradient {norm}");
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    for text in ["gpt:layers=2,width=32,context=20", "gpt:layers=2,width=32,context=20,norm=post"] {
        let (_, model) = build(text, 7);
        let mut changed = values(&tokens(2, 20, 7).to_dtype(candle_core::DType::F32).unwrap());
        changed[11] = 6.0 - changed[11];
        let changed = Tensor::from_vec(changed, (2, 20), &Device::Cpu).unwrap();
        let changed = changed.to_dtype(candle_core::DType::U32).unwrap();
        let forward = |x: &Tensor| rows(&model.forward(x, &ForwardContext::evaluate()).unwrap());
        let (before, after) = (forward(&tokens(2, 20, 7)), forward(&changed));
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before != after, (11..20).contains(&i), "{text}: token {i}");
        }
    }
}

/// Less than a whole context is a prefix.
#[test]
fn a_short_window_gets_the_logits_of_its_beginning() {
    let (_, model) = build("gpt:layers=2,width=32,context=20", 7);
    let short = tokens(1, 20, 7).narrow(1, 0, 9).unwrap().contiguous().unwrap();
    let forward = |x: &Tensor| rows(&model.forward(x, &ForwardContext::evaluate()).unwrap());
    for (short, long) in forward(&short).iter().flatten().zip(forward(&tokens(1, 20, 7)).iter().flatten()) {
        assert!((short - long).abs() < 1e-6, "{short} is not {long}");
    }
    let message = model.forward(&tokens(1, 21, 7), &ForwardContext::evaluate()).unwrap_err().to_string();
    assert!(message.starts_with("a model with a context of 20 is given windows of 21 tokens"), "{message}");
}

#[test]
fn dropout_is_a_function_of_the_step() {
    let (_, model) = build("gpt:layers=2,width=32,dropout=0.2", 7);
    let at = |step, evaluation| {
        let pass = ForwardContext::train(evaluation).with_noise(Noise { seed: 3, step });
        values(&model.forward(&tokens(2, 64, 7), &pass).unwrap())
    };
    assert_eq!(at(1, 0), at(1, 1));
    assert_ne!(at(1, 0), at(2, 0));
    assert!(model.forward(&tokens(2, 64, 7), &ForwardContext::train(0)).is_err());
    let (_, without) = build("gpt:layers=2,width=32", 7);
    let evaluate = |model: &dyn Model| values(&model.forward(&tokens(2, 64, 7), &ForwardContext::evaluate()).unwrap());
    assert_eq!(evaluate(&*model), evaluate(&*without));
}

#[test]
fn a_probe_sees_every_layer() {
    for (text, last) in [("gpt:layers=2", Some("norm")), ("gpt:layers=2,norm=post", None)] {
        let (parameters, model) = build(text, 7);
        let probe = Probe::new();
        let watched = model.forward(&tokens(2, 64, 7), &ForwardContext::evaluate().with_probe(&probe)).unwrap();
        let plain = model.forward(&tokens(2, 64, 7), &ForwardContext::evaluate()).unwrap();
        assert_eq!(values(&watched), values(&plain));
        let layers = probe.layers();
        let names: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
        let expected: Vec<&str> = ["embedding", "blocks.0", "blocks.1"].into_iter().chain(last).collect();
        assert_eq!(names, expected, "{text}");
        for (name, _) in parameters.trainable() {
            assert!(names.contains(&layer_of(&name)), "{text}: {name}");
        }
        for layer in layers {
            assert!(layer.activation_max > Some(0.0), "{text}: {layer:?}");
            assert_eq!(layer.attention_logit_max.is_some(), layer.layer.starts_with("blocks"), "{text}: {layer:?}");
        }
    }
}

/// Logits and gradients, bit by bit.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let (parameters, model) = build("gpt:dropout=0.1", 65);
            let pass = ForwardContext::train(0).with_noise(Noise { seed: 0, step: 0 });
            let logits = model.forward(&tokens(12, 64, 65), &pass).unwrap();
            let grads = cross_entropy(&logits, &targets(12 * 64, 65)).unwrap().backward().unwrap();
            let bits = |x: &Tensor| values(x).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let grads = parameters.trainable().into_iter().map(|(_, var)| bits(grads.get(&var).unwrap()));
            (bits(&logits), grads.collect::<Vec<_>>())
        })
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// What PyTorch computes in f64: `tests/fixtures/gpt.py`.
#[derive(Deserialize)]
struct Fixture {
    logits: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let fixtures: BTreeMap<String, Fixture> =
        serde_json::from_str(include_str!("../../../../tests/fixtures/gpt.json")).unwrap();
    let close = |what: &str, found: &[f32], expected: &[f64]| {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference < 3e-6 * (1.0 + expected.abs()), "{what}: {found} is not {expected}");
        }
    };
    for (norm, fixture) in &fixtures {
        let (parameters, model) = build(&format!("gpt:layers=2,heads=2,width=6,context=7,norm={norm}"), 5);
        for (n, (name, var)) in parameters.trainable().into_iter().enumerate() {
            let base = if name.contains("norm") { 1.0 } else { 0.0 };
            let value = |i| (base + 0.3 * (0.37 * i as f64 + n as f64).sin()) as f32;
            let values: Vec<f32> = (0..var.elem_count()).map(value).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
        let logits = model.forward(&tokens(2, 7, 5), &ForwardContext::train(0)).unwrap();
        close(norm, &values(&logits), &fixture.logits);
        let loss = cross_entropy(&logits, &targets(14, 5)).unwrap();
        close(norm, &[loss.to_scalar().unwrap()], &[fixture.loss]);
        let grads: GradStore = loss.backward().unwrap();
        assert_eq!(parameters.trainable().len(), fixture.gradients.len());
        for (name, var) in parameters.trainable() {
            close(&format!("{norm} {name}"), &values(grads.get(&var).unwrap()), &fixture.gradients[&name]);
        }
    }
    let (pre, post) = (&fixtures["pre"], &fixtures["post"]);
    assert!((pre.loss - post.loss).abs() > 1e-2, "pre and post differ");
}
