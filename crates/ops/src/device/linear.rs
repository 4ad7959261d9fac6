//! A product with a transposed matrix.

use super::matmul::matmul;
use crate::shape::gradients::Backward;
use candle_core::{Result, Tensor};

/// `x weight^T`: (n, inputs) by (outputs, inputs) to (n, outputs), and those of its gradients that are wanted.
pub(crate) fn linear([x, weight]: [Tensor; 2], wanted: [bool; 2]) -> Result<(Tensor, impl Backward)> {
    let y = matmul(&x, &weight.t()?)?;
    let backward = move |dy: &Tensor| {
        let dx = wanted[0].then(|| matmul(dy, &weight)).transpose()?;
        let dw = wanted[1].then(|| matmul(&dy.t()?, &x)).transpose()?;
        Ok(vec![dx, dw])
    };
    Ok((y, backward))
}
