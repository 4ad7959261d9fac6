//! The ops on CUDA: launches of the kernels in `kernels/ops`, and matrix products by candle between them.
//!
//! All is written on tensors: a forward pass makes its output and what its gradient needs, and [`differentiable`](crate::graph::differentiable)
//! puts both into candle's graph. The kernels sum in f32 (f64 for f64) in an order that depends on the shapes alone.

mod attention;
mod channel;
mod conv2d;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
mod dropout;
mod elementwise;
mod embedding;
#[cfg(test)]
mod emulated;
#[cfg_attr(not(any(test, feature = "cuda")), allow(dead_code, reason = "no GPU in this build"))]
mod launch;
mod linear;
mod norm;
mod pool2d;

pub(crate) use attention::causal_attention;
pub(crate) use channel::{batch_norm, bias, scale_shift};
pub(crate) use conv2d::conv2d;
pub(crate) use cross_entropy::cross_entropy;
#[cfg(feature = "cuda")]
pub(crate) use cuda::take;
pub(crate) use dropout::dropout;
pub(crate) use elementwise::{add_relu, gelu, relu};
pub(crate) use embedding::embedding;
pub(crate) use linear::linear;
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use pool2d::{avg_pool2d, max_pool2d};

use candle_core::{DType, Result, Tensor};

/// Whether the ops run their kernels on this tensor.
pub(crate) fn runs(tensor: &Tensor) -> bool {
    let is_float = matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::BF16 | DType::F16);
    is_float && tensor.elem_count() > 0 && (tensor.device().is_cuda() || is_emulated())
}

/// Whether tensors on the CPU stand for tensors on a GPU, in a test.
fn is_emulated() -> bool {
    #[cfg(test)]
    return emulated::is_on();
    #[cfg(not(test))]
    false
}

/// The product of matrices, `a b` of each of the last two dimensions. Each has to be contiguous or transposed.
fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(test)]
    if emulated::is_on() {
        return emulated::matmul(a, b);
    }
    a.matmul(b)
}
