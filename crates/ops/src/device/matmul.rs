//! Matrix products between the kernels, by candle.

#[cfg(test)]
use super::emulated;
use candle_core::{Result, Tensor};

/// The product of matrices, `a b` of each of the last two dimensions. Each has to be contiguous or transposed.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(test)]
    if emulated::is_on() {
        return emulated::matmul(a, b);
    }
    a.matmul(b)
}
