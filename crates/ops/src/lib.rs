//! Differentiable operations for candle with a fast backward on the CPU.
//!
//! ```text
//! images: conv2d_batch_norm (+ residual + relu) -> .. -> max_pool2 -> linear -> cross_entropy -> backward
//! text:   layer_norm -> linear -> causal_attention -> linear -> + -> layer_norm -> linear -> gelu -> linear -> + -> ..
//! ```
//!
//! candle differentiates a convolution by convolutions that it is slow at, and a normalisation by a dozen passes over the
//! memory. Here each is one operation with its gradient written by hand. They take and return [`Tensor`]s, stand anywhere
//! in a graph, and have PyTorch's conventions, edge cases included:
//!
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//!
//! # fn main() -> Result<()> {
//! let images = Tensor::arange(0f32, 2. * 3. * 8. * 8., &Device::Cpu)?.sin()?.reshape((2, 3, 8, 8))?;
//! let kernels = Var::from_tensor(&Tensor::arange(0f32, 4. * 3. * 3. * 3., &Device::Cpu)?.cos()?.reshape((4, 3, 3, 3))?)?;
//!
//! let y = ops::max_pool2(&ops::relu(&ops::conv2d(&images, &kernels, 1, 1)?)?)?;
//! assert_eq!(y.dims(), [2, 4, 4, 4]);
//! let grads = y.sqr()?.mean_all()?.backward()?;
//! assert_eq!(grads.get(&kernels).map(|grad| grad.dims()), Some(kernels.dims()));
//! # Ok(()) }
//! ```
//!
//! f32 and f64 on the CPU (f32 alone for [`causal_attention`], [`gelu`] and [`layer_norm`]) are computed here, with the SIMD at hand and the threads of rayon's current pool, to the same bits
//! for any number of threads. Tensors of other dtypes and on other devices go to candle's own operations. Gradients are not
//! themselves differentiable.
//!
//! [`Tensor`]: candle_core::Tensor

mod attention;
mod batch_norm;
mod channel;
#[cfg(test)]
mod check;
mod conv2d;
mod conv2d_batch_norm;
mod cross_entropy;
mod dropout;
mod gelu;
mod host;
mod layer_norm;
mod linear;
mod max_pool2;
mod product;
mod relu;
mod scale_shift;
mod vector;

pub use attention::{Heads, attention_logits, causal_attention};
pub use batch_norm::{Normalized, batch_norm};
pub use conv2d::conv2d;
pub use conv2d_batch_norm::{ConvNorm, conv2d_batch_norm};
pub use cross_entropy::cross_entropy;
pub use dropout::{Masks, dropout};
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::{Before, fused_linear, linear};
pub use max_pool2::max_pool2;
pub use relu::{add_relu, relu};
pub use scale_shift::scale_shift;
