//! The ops on the CPU: loops over slices of f32 and f64.
//!
//! As on a device, a function of an op makes its value and the closure that makes its gradients, of contiguous tensors outside the
//! graph.

pub(crate) mod attention;
pub(crate) mod avg_pool2d;
pub(crate) mod batch_norm;
mod channel;
pub(crate) mod conv2d;
pub(crate) mod conv2d_batch_norm;
pub(crate) mod conv2d_bias;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gelu;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod max_pool2d;
mod number;
mod product;
pub(crate) mod relu;
pub(crate) mod rms_norm;
pub(crate) mod scale_shift;
pub(crate) mod shortcut;
mod simd;
mod strided_rows;
pub(crate) mod tensor;
mod transpose;
mod vector;
