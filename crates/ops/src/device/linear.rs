//! A product with a transposed matrix.

use super::matmul;
use crate::graph::{differentiable, plain};
use candle_core::{Result, Tensor};

/// `x weight^T`: (n, inputs) by (outputs, inputs) to (n, outputs).
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let inputs = [x, weight];
    let [x, weight] = plain(inputs)?;
    let y = matmul(&x, &weight.t()?)?;
    let wanted = inputs.map(Tensor::track_op);
    differentiable("linear", &inputs, y, move |dy| {
        let dx = wanted[0].then(|| matmul(dy, &weight)).transpose()?;
        let dw = wanted[1].then(|| matmul(&dy.t()?, &x)).transpose()?;
        Ok(vec![dx, dw])
    })
}
