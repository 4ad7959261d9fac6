//! What a model is, before it is built: its keys, their values, and what training it takes.

use super::{
    forward::Model,
    shape::{ImageShape, Shape},
};
use crate::problem::data::spec::Kind;
use candle_core::Result;
use candle_nn::VarBuilder;
use std::fmt;

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

impl ModelSpec {
    /// What the model takes.
    pub fn kind(&self) -> Kind {
        match self.build {
            Build::Images(_) => Kind::Images,
            Build::Text(_) => Kind::Text,
        }
    }
}

/// Something that can be set about a model.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    /// Its value where none is given.
    pub default: Value,
    /// The values it can have.
    pub allowed: Allowed,
}

/// The value of a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(usize),
    /// A number.
    Number(f64),
    /// One of a few words.
    Word(&'static str),
}

/// The values that a [`Key`] can have.
#[derive(Debug)]
pub enum Allowed {
    /// Whole numbers from the first to the last.
    Whole(usize, usize),
    /// Numbers from 0 to below 1.
    Share,
    /// These words.
    Words(&'static [&'static str]),
}

impl Allowed {
    pub(super) fn read(&self, text: &str) -> Option<Value> {
        match *self {
            Self::Whole(low, high) => {
                text.parse().ok().filter(|number| (low..=high).contains(number)).map(Value::Whole)
            }
            Self::Share => text.parse().ok().filter(|number| (0.0..1.0).contains(number)).map(Value::Number),
            Self::Words(words) => words.iter().find(|word| **word == text).map(|word| Value::Word(word)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(low, high) => write!(f, "a whole number from {low} to {high}"),
            Self::Share => f.write_str("a number from 0 to below 1"),
            Self::Words(words) => f.write_str(&words.join(" or ")),
        }
    }
}

/// A model and the values of all its keys. It prints as the text that [`parse`](super::registry::parse) reads, with every key.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    spec: &'static ModelSpec,
    /// In the order of the keys.
    values: Vec<Value>,
}

impl ModelConfig {
    /// Of `spec`, whose keys have these values, in their order.
    pub(super) fn new(spec: &'static ModelSpec, values: Vec<Value>) -> Self {
        Self { spec, values }
    }

    /// The model without its values.
    pub fn spec(&self) -> &'static ModelSpec {
        self.spec
    }

    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// What the model takes.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// The value of this key, if the model has it.
    pub fn get(&self, key: &str) -> Option<Value> {
        let index = self.spec.keys.iter().position(|known| known.name == key)?;
        Some(self.values[index])
    }

    /// How many tokens a window has; none for a model of images.
    pub fn context(&self) -> Option<usize> {
        match self.get("context") {
            Some(Value::Whole(context)) => Some(context),
            _ => None,
        }
    }

    /// What training takes at least.
    pub fn least(&self, shape: &Shape) -> Least {
        (self.spec.least)(self, shape)
    }
}

impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        self.spec.name == other.spec.name && self.values == other.values
    }
}

impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec.name)?;
        for (i, (key, value)) in self.spec.keys.iter().zip(&self.values).enumerate() {
            write!(f, "{}{}={value}", if i == 0 { ':' } else { ',' }, key.name)?;
        }
        Ok(())
    }
}

/// What training convolutions takes at least: each is given by its inputs, outputs, the sides of its kernel and of the images
/// that it puts out in pixels, and how many tensors of them are kept.
pub(super) fn least_of_convolutions(
    convolutions: impl IntoIterator<Item = (usize, usize, usize, usize, u64)>,
) -> Least {
    let mut least = Least { parameters: 0, kept: 0 };
    for (inputs, outputs, kernel, pixels, tensors) in convolutions {
        least.parameters += (inputs * outputs * kernel * kernel) as u64;
        least.kept += (outputs * pixels) as u64 * tensors;
    }
    least
}
