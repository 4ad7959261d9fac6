//! A transformer decoder over characters, after nanoGPT (Karpathy 2022, github.com/karpathy/nanoGPT, `model.py`) with
//! `bias=False`.

use super::{Allowed, Key, Least, Model, ModelConfig, Pass, Shape, Value, dropout::Dropout};
use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use ops::{Before, Heads, attention_logits};

pub(super) const KEYS: &[Key] = &[
    Key { name: "layers", doc: "blocks", default: Value::Whole(4), allowed: Allowed::Whole(1, 96) },
    Key { name: "heads", doc: "attention heads of a block", default: Value::Whole(4), allowed: Allowed::Whole(1, 128) },
    Key {
        name: "width",
        doc: "features of a character, a multiple of heads",
        default: Value::Whole(128),
        allowed: Allowed::Whole(1, 16_384),
    },
    Key {
        name: "context",
        doc: "characters of a window",
        default: Value::Whole(64),
        allowed: Allowed::Whole(1, 16_384),
    },
    Key {
        name: "dropout",
        doc: "the share that is dropped of embeddings, attention and what a block adds",
        default: Value::Number(0.0),
        allowed: Allowed::Share,
    },
    Key {
        name: "norm",
        doc: "layer norm before what a block adds, or after adding it",
        default: Value::Word("pre"),
        allowed: Allowed::Words(&["pre", "post"]),
    },
];

/// Where layer norm stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Norm {
    /// `x + f(norm(x))`, and a norm after the last block (Radford et al. 2019).
    Pre,
    /// `norm(x + f(x))` (Vaswani et al. 2017, arXiv:1706.03762).
    Post,
}

/// The values of all keys.
#[derive(Clone, Copy)]
struct Config {
    layers: usize,
    heads: usize,
    width: usize,
    context: usize,
    dropout: f64,
    norm: Norm,
}

impl Config {
    fn of(config: &ModelConfig) -> Self {
        let whole = |key| match config.get(key) {
            Some(Value::Whole(number)) => number,
            other => unreachable!("{key} is {other:?}"),
        };
        Self {
            layers: whole("layers"),
            heads: whole("heads"),
            width: whole("width"),
            context: whole("context"),
            dropout: match config.get("dropout") {
                Some(Value::Number(number)) => number,
                other => unreachable!("dropout is {other:?}"),
            },
            norm: if config.get("norm") == Some(Value::Word("pre")) { Norm::Pre } else { Norm::Post },
        }
    }

    /// The deviation of an initial weight of `rows` by `columns`.
    fn std(&self, rows: usize, columns: usize) -> f64 {
        match self.norm {
            Norm::Pre => (2.0 / (5 * self.width) as f64).sqrt(),
            Norm::Post => (2.0 / (rows + columns) as f64).sqrt(),
        }
    }

    /// The deviation of an initial weight of a projection into the stream of features.
    fn projection_std(&self, columns: usize) -> f64 {
        match self.norm {
            // GPT-2's: the 2 layers additions to the stream have one variance in all, however many there are.
            Norm::Pre => self.std(self.width, columns) / (2.0 * self.layers as f64).sqrt(),
            Norm::Post => self.std(self.width, columns),
        }
    }

    /// The deviation of an initial embedding.
    fn embedding_std(&self) -> f64 {
        match self.norm {
            Norm::Pre => self.std(self.width, self.width),
            Norm::Post => 1.0 / (self.width as f64).sqrt(),
        }
    }
}

pub(super) fn least(config: &ModelConfig, shape: &Shape) -> Least {
    let Config { layers, heads, width, context, .. } = Config::of(config);
    let vocabulary = if let Shape::Text { vocabulary, .. } = shape { *vocabulary } else { 0 };
    let [layers, heads, width, context, vocabulary] = [layers, heads, width, context, vocabulary].map(|n| n as u64);
    // Query, key, value and the projection; four times the width and back.
    let parameters = layers * 12 * width * width + (vocabulary + context) * width;
    // The probabilities of each head, and of each token query, key, value, what the attention mixes, the hidden layer, and the stream.
    let block = context * (heads * context + (3 + 1 + 4 + 2) * width);
    Least { parameters, kept: layers * block + context * vocabulary }
}

/// Of layer norms.
const EPS: f64 = 1e-5;

pub(super) fn check(config: &ModelConfig) -> std::result::Result<(), String> {
    let Config { heads, width, .. } = Config::of(config);
    if width.is_multiple_of(heads) {
        Ok(())
    } else {
        Err(format!("width = {width} is not a multiple of heads = {heads}"))
    }
}

/// Embeddings of the characters and of their places, blocks, and logits by the embeddings of the characters again. No layer
/// has a bias.
///
/// Norms begin at 1, and all other weights are normal. Each place of the norms has the initial deviations that it is known with:
///
/// - pre: `sqrt(2 / (5 width))` (Nguyen & Salazar 2019, arXiv:1910.05895), and that over `sqrt(2 layers)` for a block's two projections
///   into the stream, as in GPT-2 (Radford et al. 2019), whose fixed 0.02 this is at a width of 1,000;
/// - post (Vaswani et al. 2017; Xiong et al. 2020, arXiv:2002.04745): `sqrt(2 / (fan in + fan out))` (Glorot & Bengio 2010), query, key
///   and value each on their own, and `1 / sqrt(width)` for embeddings, which are multiplied by `sqrt(width)` on their way in.
///   What a block adds is then as large as what it is added to; GPT-2's would make it so small that its place hardly matters.
pub(super) struct Gpt {
    context: usize,
    /// What embeddings are multiplied by.
    scale: f64,
    token: Tensor,
    position: Tensor,
    dropout: Dropout,
    blocks: Vec<Block>,
    /// None in a post-norm model, whose last block ends with one.
    norm: Option<Tensor>,
}

impl Gpt {
    pub(super) fn build(config: &ModelConfig, vocabulary: usize, vb: VarBuilder) -> Result<Box<dyn Model>> {
        let config = Config::of(config);
        let embedding = vb.pp("embedding");
        let table = |rows, name| embedding.get_with_hints((rows, config.width), name, normal(config.embedding_std()));
        Ok(Box::new(Self {
            context: config.context,
            scale: match config.norm {
                Norm::Pre => 1.0,
                Norm::Post => (config.width as f64).sqrt(),
            },
            token: table(vocabulary, "token")?,
            position: table(config.context, "position")?,
            dropout: Dropout::new(config.dropout, "embedding"),
            blocks: (0..config.layers).map(|i| Block::new(config, i, &vb)).collect::<Result<_>>()?,
            norm: match config.norm {
                Norm::Pre => Some(norm_weight(config.width, &vb.pp("norm"))?),
                Norm::Post => None,
            },
        }))
    }
}

impl Model for Gpt {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (n, context) = x.dims2()?;
        if context > self.context {
            bail!("a model with a context of {} is given windows of {context} tokens", self.context);
        }
        let width = self.token.dim(1)?;
        let tokens = self.token.index_select(&x.flatten_all()?, 0)?.reshape((n, context, width))?;
        let x = tokens.broadcast_add(&self.position.narrow(0, 0, context)?)?.reshape((n * context, width))?;
        let mut x = x.to_dtype(pass.dtype)?;
        if self.scale != 1.0 {
            x = (x * self.scale)?;
        }
        pass.activation("embedding", &x)?;
        let mut x = self.dropout.forward(&x, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, context, pass)?;
        }
        if let Some(weight) = &self.norm {
            x = pass.ops.layer_norm(&x, weight, EPS)?;
            pass.activation("norm", &x)?;
        }
        pass.ops.linear(&x, &self.token)
    }
}

/// Attention, then a perceptron with a hidden layer of four times the width, each added to its input.
struct Block {
    name: String,
    heads: usize,
    norm: Norm,
    attention_norm: Tensor,
    qkv: Tensor,
    projection: Tensor,
    mlp_norm: Tensor,
    expand: Tensor,
    contract: Tensor,
    /// Of the attention's probabilities, of what it adds, of what the perceptron adds.
    dropouts: [Dropout; 3],
}

impl Block {
    fn new(config: Config, index: usize, vb: &VarBuilder) -> Result<Self> {
        let name = format!("blocks.{index}");
        let vb = vb.pp(&name);
        let width = config.width;
        let weight =
            |rows, columns, name: &str, std| vb.get_with_hints((rows, columns), &format!("{name}.weight"), normal(std));
        let dropout = |part| Dropout::new(config.dropout, format!("{name}.{part}"));
        Ok(Self {
            heads: config.heads,
            norm: config.norm,
            attention_norm: norm_weight(width, &vb.pp("attention.norm"))?,
            qkv: weight(3 * width, width, "attention.qkv", config.std(width, width))?,
            projection: weight(width, width, "attention.projection", config.projection_std(width))?,
            mlp_norm: norm_weight(width, &vb.pp("mlp.norm"))?,
            expand: weight(4 * width, width, "mlp.expand", config.std(4 * width, width))?,
            contract: weight(width, 4 * width, "mlp.contract", config.projection_std(4 * width))?,
            dropouts: [dropout("attention.probabilities"), dropout("attention"), dropout("mlp")],
            name,
        })
    }

    fn forward(&self, x: &Tensor, context: usize, pass: &Pass) -> Result<Tensor> {
        let attention = self.attention(x, context, pass)?;
        let x = self.add(x, &attention, &self.projection, Before::Nothing, &self.dropouts[1], pass)?;
        let x = self.after(x, &self.attention_norm, pass)?;
        let hidden = pass.ops.fused_linear(&x, &self.expand, self.before(&self.mlp_norm), None)?;
        let x = self.add(&x, &hidden, &self.contract, Before::Gelu, &self.dropouts[2], pass)?;
        let x = self.after(x, &self.mlp_norm, pass)?;
        pass.activation(&self.name, &x)?;
        Ok(x)
    }

    /// What a sublayer begins with.
    fn before<'a>(&self, weight: &'a Tensor) -> Before<'a> {
        match self.norm {
            Norm::Pre => Before::LayerNorm { weight, eps: EPS },
            Norm::Post => Before::Nothing,
        }
    }

    /// What follows a sublayer's sum.
    fn after(&self, x: Tensor, weight: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self.norm {
            Norm::Pre => Ok(x),
            Norm::Post => pass.ops.layer_norm(&x, weight, EPS),
        }
    }

    /// Adds the end of a sublayer to the stream `x`.
    fn add(
        &self,
        x: &Tensor,
        y: &Tensor,
        weight: &Tensor,
        before: Before,
        dropout: &Dropout,
        pass: &Pass,
    ) -> Result<Tensor> {
        match dropout.draw(pass)? {
            None => pass.ops.fused_linear(y, weight, before, Some(x)),
            Some(masks) => x + pass.ops.dropout(&pass.ops.fused_linear(y, weight, before, None)?, masks)?,
        }
    }

    /// What the heads put out, before their projection.
    fn attention(&self, x: &Tensor, context: usize, pass: &Pass) -> Result<Tensor> {
        let heads = Heads { heads: self.heads, context };
        let qkv = pass.ops.fused_linear(x, &self.qkv, self.before(&self.attention_norm), None)?;
        if let Some(probe) = pass.probe {
            probe.attention_logits(&self.name, &attention_logits(&qkv.detach(), heads)?)?;
        }
        pass.ops.causal_attention(&qkv, heads, self.dropouts[0].draw(pass)?)
    }
}

fn normal(stdev: f64) -> Init {
    Init::Randn { mean: 0.0, stdev }
}

fn norm_weight(width: usize, vb: &VarBuilder) -> Result<Tensor> {
    vb.get_with_hints(width, "weight", Init::Const(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::models::{Noise, Parameters, Probe, Shape, layer_of, parse};
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
                assert!(
                    (deviation / expected - 1.0).abs() < tolerance,
                    "{text}: {name}: {deviation} is not {expected}"
                );
            }
        }
        // Nothing is known yet: the loss is that of guessing.
        let loss = cross_entropy(
            &build("gpt", 65).1.forward(&tokens(2, 64, 65), &Pass::evaluate()).unwrap(),
            &targets(128, 65),
        );
        let loss = loss.unwrap().to_scalar::<f32>().unwrap();
        assert!((loss - 65f32.ln()).abs() < 0.2, "{loss}");
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for text in ["gpt:layers=2,width=32", "gpt:layers=2,width=32,norm=post", "gpt:layers=2,width=32,dropout=0.1"] {
            let (parameters, model) = build(text, 7);
            let pass = Pass::train(0).with_noise(Noise { seed: 0, step: 1 });
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
            let forward = |x: &Tensor| rows(&model.forward(x, &Pass::evaluate()).unwrap());
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
        let forward = |x: &Tensor| rows(&model.forward(x, &Pass::evaluate()).unwrap());
        for (short, long) in forward(&short).iter().flatten().zip(forward(&tokens(1, 20, 7)).iter().flatten()) {
            assert!((short - long).abs() < 1e-6, "{short} is not {long}");
        }
        let message = model.forward(&tokens(1, 21, 7), &Pass::evaluate()).unwrap_err().to_string();
        assert!(message.starts_with("a model with a context of 20 is given windows of 21 tokens"), "{message}");
    }

    #[test]
    fn dropout_is_a_function_of_the_step() {
        let (_, model) = build("gpt:layers=2,width=32,dropout=0.2", 7);
        let at = |step, evaluation| {
            let pass = Pass::train(evaluation).with_noise(Noise { seed: 3, step });
            values(&model.forward(&tokens(2, 64, 7), &pass).unwrap())
        };
        assert_eq!(at(1, 0), at(1, 1));
        assert_ne!(at(1, 0), at(2, 0));
        assert!(model.forward(&tokens(2, 64, 7), &Pass::train(0)).is_err());
        let (_, without) = build("gpt:layers=2,width=32", 7);
        let evaluate = |model: &dyn Model| values(&model.forward(&tokens(2, 64, 7), &Pass::evaluate()).unwrap());
        assert_eq!(evaluate(&*model), evaluate(&*without));
    }

    #[test]
    fn a_probe_sees_every_layer() {
        for (text, last) in [("gpt:layers=2", Some("norm")), ("gpt:layers=2,norm=post", None)] {
            let (parameters, model) = build(text, 7);
            let probe = Probe::new();
            let watched = model.forward(&tokens(2, 64, 7), &Pass::evaluate().with_probe(&probe)).unwrap();
            let plain = model.forward(&tokens(2, 64, 7), &Pass::evaluate()).unwrap();
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
                let pass = Pass::train(0).with_noise(Noise { seed: 0, step: 0 });
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
            serde_json::from_str(include_str!("../../../tests/fixtures/gpt.json")).unwrap();
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
            let logits = model.forward(&tokens(2, 7, 5), &Pass::train(0)).unwrap();
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
}
