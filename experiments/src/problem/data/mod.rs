//! The data sets: images with integer labels, and text as numbered characters.
//!
//! [`Dataset`] names them and [`Dataset::load`] reads one. [`ImageData::batch`] and [`text::windows`] make what a model
//! takes. The digits and the language are parts of the program; the others come from files or from the Hugging Face
//! Hub, with the same bytes from either. To add one: a file with its `SPEC` and its `load`, and a line in each part of `dataset.rs`.

pub mod cifar10;
pub mod dataset;
pub mod digits;
pub mod error;
pub mod fashion_mnist;
mod file;
#[cfg(feature = "hub")]
mod hub;
pub mod images;
pub mod language;
pub mod loaded;
pub mod published;
pub mod source;
pub mod spec;
pub mod text;
pub mod tinyshakespeare;
#[cfg(not(feature = "hub"))]
mod without_hub;

pub use dataset::{Dataset, Fingerprint};
pub use error::DataError;
pub use images::{Augment, ImageData, ImageSpec, Split};
pub use loaded::Data;
pub use published::Published;
pub use source::Hub;
pub use spec::{Defaults, Kind, Length, Spec};
pub use text::TextData;
