//! What a data set is, before anything of it is read.

use super::{images::ImageSpec, published::Published};
use crate::config::augmentation::Augmentation;
use std::fmt;

/// What a data set holds, and what a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Images with labels.
    Images,
    /// Text, character by character.
    Text,
}

/// What a data set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The name that options and records use.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// The model that an experiment uses where it is told none.
    pub default_model: &'static str,
    /// How an experiment uses it where it is not told.
    pub defaults: Defaults,
    /// Its images; none for text.
    pub images: Option<ImageSpec>,
    /// The files that it is published as; none for any text.
    pub published: &'static [Published],
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training data.
    Epochs(u64),
    /// Updates.
    Steps(u64),
}

/// How a data set is used where the options do not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// How long a run is.
    pub length: Length,
    /// Examples per update.
    pub batch_size: usize,
    /// How training images are moved and mirrored.
    pub augment: Augmentation,
    /// Whether weight decay leaves out tensors of fewer than two dimensions.
    pub decay_matrices_only: bool,
}

impl Defaults {
    /// Those of any text.
    pub const TEXT: Self =
        Self { length: Length::Steps(2_000), batch_size: 12, augment: Augmentation::None, decay_matrices_only: true };

    /// Those of images, which do not augment.
    pub const fn images(epochs: u64, batch_size: usize) -> Self {
        Self { length: Length::Epochs(epochs), batch_size, augment: Augmentation::None, decay_matrices_only: false }
    }
}

impl Spec {
    /// What the data set holds.
    pub fn kind(&self) -> Kind {
        if self.images.is_some() { Kind::Images } else { Kind::Text }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Images => "images",
            Self::Text => "text",
        })
    }
}
