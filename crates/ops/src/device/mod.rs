//! The ops on CUDA: launches of the kernels in `kernels/ops`, and matrix products by candle between them.
//!
//! All is written on tensors, contiguous ones outside the graph: a function makes an op's value and the closure that makes its
//! gradients, with what they need. The kernels sum in f32 (f64 for f64) in an order that depends on the shapes alone.

pub(crate) mod attention;
pub(crate) mod channel;
pub(crate) mod conv2d;
pub(crate) mod cross_entropy;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
#[cfg(test)]
mod emulated;
pub(crate) mod kernels;
#[cfg_attr(not(any(test, feature = "cuda")), allow(dead_code, reason = "no GPU in this build"))]
mod launch;
pub(crate) mod linear;
mod matmul;
pub(crate) mod norm;
pub(crate) mod pool2d;
mod run;
