//! Whose operations models run on.

use serde::{Deserialize, Serialize};

/// Whose operations models run on. Shapes, conventions and errors are those of the crate `ops`; but parameters may be of another type
/// than `x`, to which they are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operations {
    /// Those of the crate `ops`.
    #[default]
    Descent,
    /// candle's, composed where candle lacks one or its gradient is wrong. The values are the same but for rounding, and so are the
    /// gradients, but for two: at exactly 0 the rectifier's is 1 and not 0, and equal maxima share that of a window. candle
    /// differentiates a convolution with a stride for square images only.
    Candle,
}
