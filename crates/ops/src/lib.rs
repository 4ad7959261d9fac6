//! Differentiable operations for candle with a fast backward on the CPU.
//!
//! ```text
//! images: conv2d_batch_norm (+ residual, shortcut + relu) | conv2d_bias (+ relu) -> .. -> max_pool2d | avg_pool2d -> linear -> cross_entropy
//! text:   embedding -> fused_linear (layer_norm first) -> causal_attention -> fused_linear (+ residual)
//!                   -> fused_linear (layer_norm first) -> fused_linear (gelu first, + residual) -> ..
//! ```
//!
//! candle differentiates a convolution by convolutions that it is slow at, and a normalisation by a dozen passes over the
//! memory. Here each is one operation with its gradient written by hand, which goes on to the next without the zeros and sums of candle's
//! gradient store. They take and return [`Tensor`]s, stand anywhere in a graph, and have PyTorch's conventions, edge cases included:
//!
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//!
//! # fn main() -> Result<()> {
//! let images = Tensor::arange(0f32, 2. * 3. * 8. * 8., &Device::Cpu)?.sin()?.reshape((2, 3, 8, 8))?;
//! let kernels = Var::from_tensor(&Tensor::arange(0f32, 4. * 3. * 3. * 3., &Device::Cpu)?.cos()?.reshape((4, 3, 3, 3))?)?;
//!
//! let y = ops::conv2d(&images, &kernels, ops::Conv2dOptions { padding: 1, ..Default::default() })?;
//! let y = ops::max_pool2d(&ops::relu(&y)?, ops::Pool2dOptions::square(2))?;
//! assert_eq!(y.dims(), [2, 4, 4, 4]);
//! // `loss.backward()` gives the same, with a pass more over each variable's gradient.
//! let grads = ops::backward(&y.sqr()?.mean_all()?)?;
//! assert_eq!(grads.get(&kernels).map(|grad| grad.dims()), Some(kernels.dims()));
//! # Ok(()) }
//! ```
//!
//! What runs where:
//!
//! - f32 and f64 on the CPU (f32 alone for [`causal_attention`], [`fused_linear`], [`gelu`] and [`layer_norm`]) are computed here, with
//!   the SIMD at hand and the threads of rayon's current pool, to the same bits for any number of threads.
//! - f32, f64, bf16 and f16 on CUDA (feature `cuda`) are computed by the kernels in `kernels/ops`, whose sums are in f32 (f64 for
//!   f64) and in an order that depends on the shapes alone; matrix products are candle's (cuBLAS). A convolution is cuDNN's with
//!   the feature `cudnn`, in algorithms that add in a fixed order, and without it matrix products with its windows as columns.
//!   Labels and indices there are not checked beforehand: one that is too large gives NaN.
//! - bf16 and f16 on the CPU are widened to f32 where an operation sums, and rounded at its end.
//! - All else, Metal too, goes to candle's own operations, to those of them that have the right gradient.
//!
//! The kernels were not run on a GPU. Their sources are compiled as C++ and run on the CPU by the tests, against the definitions
//! in f64, and nvcc compiles them. Gradients are not themselves differentiable.
//!
//! [`Tensor`]: candle_core::Tensor

#[cfg(test)]
extern crate self as ops;

mod attention;
mod avg_pool2d;
mod batch_norm;
#[cfg(test)]
mod check;
mod conv2d;
mod conv2d_batch_norm;
mod conv2d_bias;
mod cpu;
mod cross_entropy;
mod device;
mod dropout;
mod embedding;
mod gelu;
mod graph;
mod layer_norm;
mod linear;
mod max_pool2d;
pub mod reference;
mod relu;
mod rms_norm;
mod scale_shift;
mod shape;
mod shortcut;

pub use attention::{attention_logits, causal_attention};
pub use avg_pool2d::avg_pool2d;
pub use batch_norm::batch_norm;
pub use conv2d::conv2d;
pub use conv2d_batch_norm::conv2d_batch_norm;
pub use conv2d_bias::conv2d_bias;
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use embedding::embedding;
pub use gelu::gelu;
pub use graph::backward;
pub use layer_norm::layer_norm;
pub use linear::{Prologue, fused_linear, linear};
pub use max_pool2d::max_pool2d;
pub use relu::{add_relu, relu};
pub use rms_norm::rms_norm;
pub use scale_shift::scale_shift;
pub use shape::{
    batch_norm::BatchNormOutput,
    conv2d::{Conv2dBatchNormOptions, Conv2dOptions},
    dropout::DropoutMasks,
    heads::Heads,
    pool2d::Pool2dOptions,
};
pub use shortcut::shortcut;
