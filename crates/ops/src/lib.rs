//! Differentiable operations for [candle](candle_core), with a fast backward pass on the CPU.
//!
//! candle differentiates a convolution by convolutions that it is slow at, and a normalisation by a dozen passes over the memory.
//! Here each is one operation, whose gradient is written by hand. The operations take and return [`Tensor`]s, and stand anywhere in
//! a graph, beside candle's own. Their conventions are PyTorch's, edge cases included.
//!
//! ```text
//! images: conv2d_batch_norm (+ residual, shortcut + relu) | conv2d_bias (+ relu) -> .. -> max_pool2d | avg_pool2d -> linear -> cross_entropy
//! text:   embedding -> fused_linear (layer_norm first) -> causal_attention -> fused_linear (+ residual)
//!                   -> fused_linear (layer_norm first) -> fused_linear (gelu first, + residual) -> ..
//! ```
//!
//! # An example
//!
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//! use ops::{Conv2dOptions, Pool2dOptions};
//!
//! # fn main() -> Result<()> {
//! let images = Tensor::arange(0f32, 2. * 3. * 8. * 8., &Device::Cpu)?.sin()?.reshape((2, 3, 8, 8))?;
//! let kernels = Var::from_tensor(&Tensor::arange(0f32, 4. * 3. * 3. * 3., &Device::Cpu)?.cos()?.reshape((4, 3, 3, 3))?)?;
//!
//! let y = ops::conv2d(&images, &kernels, Conv2dOptions { padding: 1, ..Default::default() })?;
//! let y = ops::max_pool2d(&ops::relu(&y)?, Pool2dOptions::square(2))?;
//! assert_eq!(y.dims(), [2, 4, 4, 4]);
//!
//! let grads = ops::backward(&y.sqr()?.mean_all()?)?;
//! assert_eq!(grads.get(&kernels).map(|grad| grad.dims()), Some(kernels.dims()));
//! # Ok(()) }
//! ```
//!
//! [`backward`] is `loss.backward()` without a pass over the memory of each variable's gradient. Both work, and give the same
//! numbers. Between two operations of this crate a gradient goes straight from one to the other, without the zeros and sums of
//! candle's gradient store. Gradients are not themselves differentiable.
//!
//! # What runs where
//!
//! - f32 and f64 on the CPU are computed here, with the SIMD instructions of the processor and the threads of rayon's current pool.
//!   The bits are the same for any number of threads. ([`causal_attention`], [`fused_linear`], [`linear`], [`gelu`] and
//!   [`layer_norm`] are computed here in f32 alone, in f64 by candle.)
//! - bf16 and f16 on the CPU are computed in f32, then rounded, where an operation sums.
//! - f32, f64, bf16 and f16 on CUDA (feature `cuda`) are computed by the kernels of this crate. They sum in f32 (f64 for f64), in an
//!   order that depends on the shapes alone. Matrix products are candle's (cuBLAS). A convolution is cuDNN's with the feature
//!   `cudnn`, using only deterministic algorithms; without it, it is matrix products with its windows as columns. Labels and indices
//!   on a GPU are not checked beforehand: one that is too large gives NaN.
//! - All else, Metal too, is composed of candle's own operations, as [`mod@reference`] shows, of those that have the right gradient.
//!
//! The operations were run on CPUs only. The CUDA kernels were never run on a GPU. Their sources are compiled as C++ and run on the CPU
//! by the tests, which hold them to the definitions in f64, and nvcc compiles them.
//!
//! # Features
//!
//! - `cuda`: the kernels of this crate, and candle's for CUDA. The build needs nvcc.
//! - `cudnn`: `cuda`, and convolutions by cuDNN.
//! - `metal`: candle's operations for Metal.
//!
//! No feature is on if nothing is said. The crate needs candle 0.11 and Rust 1.90.
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
mod side;

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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
