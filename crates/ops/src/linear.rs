//! A matrix product with a transposed matrix, as in a layer, and what often stands before and after it.

use crate::{
    cpu::linear::Fused,
    device::{self, kernels::has_kernels},
    gelu::gelu,
    graph::{detached_contiguous, differentiable},
    layer_norm::layer_norm,
    reference,
    shape::{error::fail, rows::check_rows},
    side::Side,
};
use candle_core::{Result, Tensor};

/// The product of a layer: `x weight^T`, of `x` (n, inputs) and `weight` (outputs, inputs), is (n, outputs).
///
/// It differs from `x.matmul(&weight.t()?)` in two things. The weight's gradient `grad^T x` lies in memory as the weight does, while
/// candle makes its transpose and walks across it to add it up. And candle 0.11 on Linux reads /proc/cpuinfo for every matrix product on
/// the CPU, unless `RAYON_NUM_THREADS` is set, which takes as long as a small product.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    fused_linear(x, weight, Prologue::Nothing, None)
}

/// What happens to the rows before the product of [`fused_linear`].
#[derive(Clone, Copy, Debug)]
pub enum Prologue<'a> {
    /// They are taken as they are.
    Nothing,
    /// [`layer_norm`](crate::layer_norm()).
    LayerNorm {
        /// Its weight, (inputs).
        weight: &'a Tensor,
        /// Its eps.
        eps: f64,
    },
    /// [`gelu`](crate::gelu()).
    Gelu,
}

/// A sublayer of a transformer: `residual + prologue(x) weight^T`, of `x` (n, inputs) and `weight` (outputs, inputs), is (n, outputs), as
/// the residual is.
///
/// In f32 on the CPU it is one pass: `prologue(x)` is made again for the gradient and not kept, and neither it nor the product has a
/// gradient of its own in memory. (With a layer norm and a residual it is two operations.) Elsewhere it is made of the single operations.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn fused_linear(x: &Tensor, weight: &Tensor, prologue: Prologue, residual: Option<&Tensor>) -> Result<Tensor> {
    check(x, weight, prologue, residual)?;
    match prologue {
        _ if !matches!(Side::of_f32(x), Side::Cpu) || x.elem_count() == 0 || weight.elem_count() == 0 => {
            unfused(x, weight, prologue, residual)
        }
        Prologue::LayerNorm { weight: norm, eps } => {
            let y = fused(Fused::LayerNorm { eps: eps as f32 }, x, weight, Some(norm))?;
            residual.map_or(Ok(y.clone()), |residual| residual + &y)
        }
        Prologue::Gelu => fused(Fused::Gelu, x, weight, residual),
        Prologue::Nothing => fused(Fused::Nothing, x, weight, residual),
    }
}

fn check(x: &Tensor, weight: &Tensor, prologue: Prologue, residual: Option<&Tensor>) -> Result<()> {
    let fits = matches!((x.dims(), weight.dims()), (&[_, inputs], &[_, width]) if inputs == width);
    if !fits || x.dtype() != weight.dtype() {
        let [x, weight] = [x, weight].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("linear: x {x} and weight {weight} must be (n, inputs) and (outputs, inputs) of one dtype");
    }
    if let Prologue::LayerNorm { weight, .. } = prologue {
        check_rows("linear", x, weight)?;
    }
    if let Some(residual) = residual {
        let out = [x.dims()[0], weight.dims()[0]];
        if residual.dims() != out || residual.dtype() != x.dtype() {
            let (found, dtype) = (residual.shape(), residual.dtype());
            fail!("linear: residual {found:?} of {dtype:?} must be {out:?} of {:?}, as what it is added to", x.dtype());
        }
    }
    Ok(())
}

/// `third`: the layer norm's weight if there is one, and the residual else.
fn fused(op: Fused, x: &Tensor, weight: &Tensor, third: Option<&Tensor>) -> Result<Tensor> {
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(third).collect();
    let wanted: Vec<bool> = inputs.iter().map(|input| input.track_op()).collect();
    let [x, weight] = detached_contiguous([x, weight])?;
    let third = third.map(|third| third.detach().contiguous()).transpose()?;
    let (y, backward) = op.apply([x, weight], third, wanted)?;
    differentiable("linear", &inputs, y, backward)
}

/// The same, made of the single operations.
fn unfused(x: &Tensor, weight: &Tensor, prologue: Prologue, residual: Option<&Tensor>) -> Result<Tensor> {
    let x = match prologue {
        Prologue::Nothing => x.clone(),
        Prologue::LayerNorm { weight, eps } => layer_norm(x, weight, eps)?,
        Prologue::Gelu => gelu(x)?,
    };
    let y = match has_kernels(&x) && has_kernels(weight) {
        true => {
            let inputs = [&x, weight];
            let wanted = inputs.map(Tensor::track_op);
            let (y, backward) = device::linear::linear(detached_contiguous(inputs)?, wanted)?;
            differentiable("linear", &inputs, y, backward)?
        }
        false => reference::linear(&x, weight)?,
    };
    residual.map_or(Ok(y.clone()), |residual| residual + &y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};
    use candle_core::DType;

    /// 130 rows make two tasks, and so do 65 outputs.
    const N: usize = 130;

    #[test]
    fn values_and_gradients() {
        check([&wave(&[N, 3], 1.0, 0.0), &wave(&[65, 3], 1.0, 1.0)], |[x, weight]| linear(x, weight));
        let (x, weight) = (wave(&[2, 3], 1.0, 0.0), wave(&[4, 3], 1.0, 1.0));
        let (y, expected) = (linear(&x, &weight).unwrap(), x.matmul(&weight.t().unwrap()).unwrap());
        assert_eq!(y.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
        assert!(linear(&x, &wave(&[4, 2], 1.0, 1.0)).is_err());
    }

    #[test]
    fn values_and_gradients_of_what_is_fused() {
        let (x, weight, residual) = (wave(&[N, 5], 2.0, 0.0), wave(&[3, 5], 1.0, 1.0), wave(&[N, 3], 1.0, 0.5));
        let norm = (wave(&[5], 0.5, 2.0) + 1.0).unwrap();
        check([&x, &weight, &residual], |[x, weight, residual]| {
            fused_linear(x, weight, Prologue::Nothing, Some(residual))
        });
        check([&x, &weight], |[x, weight]| fused_linear(x, weight, Prologue::Gelu, None));
        check([&x, &weight, &residual], |[x, weight, residual]| {
            fused_linear(x, weight, Prologue::Gelu, Some(residual))
        });
        check([&x, &weight, &norm], |[x, weight, norm]| {
            fused_linear(x, weight, Prologue::LayerNorm { weight: norm, eps: 1e-3 }, None)
        });
        check([&x, &weight, &norm, &residual], |[x, weight, norm, residual]| {
            fused_linear(x, weight, Prologue::LayerNorm { weight: norm, eps: 1e-3 }, Some(residual))
        });
    }

    /// Which rows are one task is no matter.
    #[test]
    fn empty_and_single_rows() {
        for (n, inputs, outputs) in [(0, 3, 2), (1, 3, 2), (2, 0, 2), (2, 3, 0)] {
            let zeros = |shape| Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu).unwrap();
            let y = fused_linear(&zeros((n, inputs)), &zeros((outputs, inputs)), Prologue::Gelu, None).unwrap();
            assert_eq!(y.dims(), [n, outputs]);
        }
    }
}
