//! How training images are moved and mirrored.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How training images are moved and mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augmentation {
    /// Not at all.
    #[default]
    None,
    /// Moved by up to 4 pixels each way, with black around them, and mirrored by a fair coin (He et al. 2016, arXiv:1512.03385,
    /// section 4.2).
    Random,
    /// Moved by up to 2 pixels each way, with their mirror image around them, and mirrored in every second pass: in which, a coin tells for
    /// each image (Jordan 2024, arXiv:2404.00498).
    Alternating,
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}
