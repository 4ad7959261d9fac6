//! Models that classify images or predict the next character of a text.
//!
//! A model is built from the [`Shape`] of its data and a `VarBuilder` over [`Parameters`]. To add one: a file with a type that
//! implements [`Model`] and a function that builds it, and a line in [`all`].

mod cnn;
mod cnn4;
mod dropout;
pub mod forward;
mod gpt;
mod layers;
mod mlp;
mod operations;
pub mod parameters;
pub mod probe;
pub mod registry;
mod resnet;
pub mod shape;
pub mod spec;
mod speednet;
#[cfg(test)]
mod tests;

pub use forward::{ForwardContext, Mode, Model, Noise};
pub use parameters::Parameters;
pub use probe::{Probe, layer_of};
pub use registry::{all, parse};
pub use shape::{ImageShape, Shape};
pub use spec::{Allowed, Build, Key, Least, ModelConfig, ModelSpec, Value};
