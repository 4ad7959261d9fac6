//! What batch normalisation returns.

use candle_core::{DType, Result, Tensor};

/// What [`batch_norm`](crate::batch_norm()) returns.
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalised images, (n, c, h, w).
    pub output: Tensor,
    /// The mean of each channel of the batch, (c), outside the graph. For x in bf16 or f16 it is in f32, on Metal in x's dtype.
    pub mean: Tensor,
    /// The biased variance of each channel of the batch, (c), outside the graph and in the dtype of the mean.
    pub variance: Tensor,
}

impl BatchNormOutput {
    /// Rounds the output to this dtype; the statistics keep theirs.
    pub(crate) fn narrowed(self, dtype: DType) -> Result<Self> {
        Ok(Self { output: self.output.to_dtype(dtype)?, ..self })
    }
}
