//! A matrix product with a transposed matrix, as in a layer.

use crate::host::fail;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Tensor, backend::BackendStorage,
};

/// `x weight^T`: x (n, inputs) by weight (outputs, inputs) to (n, outputs), on any device.
///
/// The difference from `x.matmul(&weight.t()?)` is the weight's gradient: `grad^T x` lies in memory as the weight does, while
/// candle makes its transpose and walks across it to add it up.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let fits = matches!((x.dims(), weight.dims()), (&[_, inputs], &[_, width]) if inputs == width);
    if !fits || x.dtype() != weight.dtype() {
        let [x, weight] = [x, weight].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("linear: x {x} and weight {weight} must be (n, inputs) and (outputs, inputs) of one dtype");
    }
    x.contiguous()?.apply_op2(&weight.contiguous()?, Linear)
}

struct Linear;

impl Linear {
    fn forward<S: BackendStorage>(&self, x: &S, lx: &Layout, weight: &S, lw: &Layout) -> Result<(S, Shape)> {
        let ((n, inputs), (outputs, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let y = x.matmul(weight, (1, n, outputs, inputs), lx, &lw.transpose(0, 1)?)?;
        Ok((y, (n, outputs).into()))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn metal_fwd(
        &self,
        s1: &MetalStorage,
        l1: &Layout,
        s2: &MetalStorage,
        l2: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad_x = x.track_op().then(|| grad.matmul(&weight.detach()));
        let grad_weight = weight.track_op().then(|| grad.t()?.matmul(&x.detach()));
        Ok((grad_x.transpose()?, grad_weight.transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};

    #[test]
    fn values_and_gradients() {
        check([&wave(&[5, 7], 1.0, 0.0), &wave(&[3, 7], 1.0, 1.0)], |[x, weight]| linear(x, weight));
        let (x, weight) = (wave(&[2, 3], 1.0, 0.0), wave(&[4, 3], 1.0, 1.0));
        let (y, expected) = (linear(&x, &weight).unwrap(), x.matmul(&weight.t().unwrap()).unwrap());
        assert_eq!(y.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
        assert!(linear(&x, &wave(&[4, 2], 1.0, 1.0)).is_err());
    }
}
