//! Rows of numbers.

use super::error::fail;
use candle_core::{Result, Tensor};

/// That `weight` has a number for each of the last dimension of `x`.
pub(crate) fn check_rows(op: &str, x: &Tensor, weight: &Tensor) -> Result<()> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] {
        fail!(
            "{op}: weight {:?} must be (n), as the last dimension of x {:?}, and n at least 1",
            weight.shape(),
            x.shape()
        );
    }
    if weight.dtype() != x.dtype() {
        fail!("{op}: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    Ok(())
}

/// The shape of the rows, so long, that the indices name.
pub(crate) fn shape_of_rows(indices: &Tensor, width: usize) -> Vec<usize> {
    [indices.dims(), &[width]].concat()
}
