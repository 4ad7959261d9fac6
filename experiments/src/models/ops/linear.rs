//! A matrix product with a transposed matrix, as in a layer.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Tensor, backend::BackendStorage, bail,
};

/// `x weight^T`: (n, inputs) by (outputs, inputs) to (n, outputs).
///
/// The difference from `x.matmul(&weight.t()?)` is the weight's gradient: `grad^T x` lies in memory as the weight does, while
/// candle makes its transpose and walks across it to add it up.
pub(in crate::models) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2(weight, Linear)
}

struct Linear;

impl Linear {
    fn forward<S: BackendStorage>(&self, x: &S, lx: &Layout, weight: &S, lw: &Layout) -> Result<(S, Shape)> {
        let ((n, inputs), (outputs, width)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if inputs != width {
            bail!("a layer of {width} inputs is given {inputs}");
        }
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
        let grad_x = grad.matmul(&weight.detach())?;
        let grad_weight = grad.t()?.matmul(&x.detach())?;
        Ok((Some(grad_x), Some(grad_weight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ops::tests::{check, wave};

    #[test]
    fn values_and_gradients() {
        check([&wave(&[5, 7], 1.0, 0.0), &wave(&[3, 7], 1.0, 1.0)], |[x, weight]| linear(x, weight));
        let (x, weight) = (wave(&[2, 3], 1.0, 0.0), wave(&[4, 3], 1.0, 1.0));
        let (y, expected) = (linear(&x, &weight).unwrap(), x.matmul(&weight.t().unwrap()).unwrap());
        assert_eq!(y.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
        assert!(linear(&x, &wave(&[4, 2], 1.0, 1.0)).is_err());
    }
}
