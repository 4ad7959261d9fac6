//! A transformer decoder over characters, after nanoGPT (Karpathy 2022, github.com/karpathy/nanoGPT, `model.py`) with
//! `bias=False`.

use super::{
    dropout::Dropout,
    forward::{ForwardContext, Model},
    shape::Shape,
    spec::{Allowed, Key, Least, ModelConfig, Value},
};
use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use ops::{Heads, Prologue, attention_logits};

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
    fn forward(&self, x: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
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

    fn forward(&self, x: &Tensor, context: usize, pass: &ForwardContext) -> Result<Tensor> {
        let attention = self.attention(x, context, pass)?;
        let x = self.add(x, &attention, &self.projection, Prologue::Nothing, &self.dropouts[1], pass)?;
        let x = self.after(x, &self.attention_norm, pass)?;
        let hidden = pass.ops.fused_linear(&x, &self.expand, self.before(&self.mlp_norm), None)?;
        let x = self.add(&x, &hidden, &self.contract, Prologue::Gelu, &self.dropouts[2], pass)?;
        let x = self.after(x, &self.mlp_norm, pass)?;
        pass.activation(&self.name, &x)?;
        Ok(x)
    }

    /// What a sublayer begins with.
    fn before<'a>(&self, weight: &'a Tensor) -> Prologue<'a> {
        match self.norm {
            Norm::Pre => Prologue::LayerNorm { weight, eps: EPS },
            Norm::Post => Prologue::Nothing,
        }
    }

    /// What follows a sublayer's sum.
    fn after(&self, x: Tensor, weight: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
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
        before: Prologue,
        dropout: &Dropout,
        pass: &ForwardContext,
    ) -> Result<Tensor> {
        match dropout.draw(pass)? {
            None => pass.ops.fused_linear(y, weight, before, Some(x)),
            Some(masks) => x + pass.ops.dropout(&pass.ops.fused_linear(y, weight, before, None)?, masks)?,
        }
    }

    /// What the heads put out, before their projection.
    fn attention(&self, x: &Tensor, context: usize, pass: &ForwardContext) -> Result<Tensor> {
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
mod tests;
