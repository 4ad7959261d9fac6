//! What batch normalisation returns.

use candle_core::{DType, Result, Tensor};

/// What [`batch_norm`](crate::batch_norm()) returns.
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalised images, (n, c, h, w).
    pub output: Tensor,
    /// The mean of each channel of the batch, (c), outside the graph. Of bf16 and f16 it is f32, on
    /// Metal of the type of x.
    pub mean: Tensor,
    /// The biased variance of each channel of the batch, (c), as the mean.
    pub variance: Tensor,
}

impl BatchNormOutput {
    /// With an output of this type; the statistics keep theirs.
    pub(crate) fn narrowed(self, dtype: DType) -> Result<Self> {
        Ok(Self { output: self.output.to_dtype(dtype)?, ..self })
    }
}
