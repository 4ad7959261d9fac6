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
#[cfg(feature = "metal")]
mod metal;
#[cfg(any(test, feature = "metal"))]
mod metal_source;
pub(crate) mod nest;
pub(crate) mod simd;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod tensors;
pub(crate) mod update;
