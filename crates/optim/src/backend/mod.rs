//! The compiled forms of a formula, and how updates reach the storage of candle's tensors.

#[cfg(test)]
pub(crate) mod allocations;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub(crate) mod device;
#[cfg(test)]
pub(crate) mod emulated;
pub(crate) mod kept;
pub(crate) mod kernel;
#[cfg(any(test, feature = "cuda", feature = "metal"))]
mod kernel_source;
#[cfg(feature = "metal")]
mod metal;
pub(crate) mod nest;
#[cfg(any(test, feature = "cuda"))]
mod nvrtc;
mod pages;
pub(crate) mod simd;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod tensors;
pub(crate) mod update;
