//! A product with a transposed matrix.

use super::{graph::differentiable, matmul};
use candle_core::{Result, Tensor};

/// `x weight^T`: (n, inputs) by (outputs, inputs) to (n, outputs).
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let y = matmul(&x.detach(), &weight.detach().t()?)?;
    let wanted = [x.track_op(), weight.track_op()];
    differentiable("linear", &[&x, &weight], y, move |arguments, _, dy| {
        let [x, weight] = arguments else { unreachable!("there are two arguments") };
        let dx = wanted[0].then(|| matmul(dy, weight)).transpose()?;
        let dw = wanted[1].then(|| matmul(&dy.t()?, x)).transpose()?;
        Ok(vec![dx, dw])
    })
}
