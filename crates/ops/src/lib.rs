//! Differentiable operations for candle with a fast backward on the CPU.
//!
//! ```text
//! x -> conv2d -> batch_norm (+ relu) -> .. -> max_pool2 -> linear -> cross_entropy -> backward
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
//! f32 and f64 on the CPU are computed here, with the SIMD at hand and the threads of rayon's current pool, to the same bits
//! for any number of threads. Tensors of other dtypes and on other devices go to candle's own operations. Gradients are not
//! themselves differentiable.
//!
//! [`Tensor`]: candle_core::Tensor

mod batch_norm;
mod channel;
mod conv2d;
mod conv2d_batch_norm;
mod cross_entropy;
mod host;
mod max_pool2;
mod relu;
mod scale_shift;

pub use batch_norm::{Normalized, batch_norm};
pub use conv2d::{Timed, conv2d};
pub use conv2d_batch_norm::{ConvNorm, conv2d_batch_norm};
pub use cross_entropy::cross_entropy;
pub use max_pool2::max_pool2;
pub use relu::{add_relu, relu};
pub use scale_shift::scale_shift;
