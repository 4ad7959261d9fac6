//! What a model takes.

use crate::problem::data::spec::Kind;

/// The size of the images that a model classifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// The number of classes.
    pub classes: usize,
}

/// What a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Images.
    Images(ImageShape),
    /// Tokens.
    Text {
        /// The number of different tokens.
        vocabulary: usize,
        /// The most tokens in a window.
        context: usize,
    },
}

impl Shape {
    /// The channels and sides of an image; none of text.
    pub(super) fn image(&self) -> (usize, usize, usize) {
        match self {
            Self::Images(shape) => (shape.channels, shape.height, shape.width),
            Self::Text { .. } => (0, 0, 0),
        }
    }

    /// What the data is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Images(_) => Kind::Images,
            Self::Text { .. } => Kind::Text,
        }
    }
}
