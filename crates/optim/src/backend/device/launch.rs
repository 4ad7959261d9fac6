//! A launch as data: what a backend needs to start a kernel. `launch.h` describes it.

use crate::backend::kernel::Kernel;
use candle_core::Tensor;

/// A flag of a launch, as in `launch.h`.
pub(crate) const BY_NORM: u32 = 1;

/// What Metal needs beside an address, to order launches that use the same memory.
#[cfg(feature = "metal")]
pub(crate) type Handle = Option<candle_metal_kernels::metal::Buffer>;
#[cfg(not(feature = "metal"))]
pub(crate) type Handle = ();

/// The first element of a tensor in the device's memory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub address: u64,
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads it"))]
    pub handle: Handle,
}

/// A launch, as a backend takes it.
#[cfg_attr(not(any(test, feature = "cuda", feature = "metal")), allow(dead_code, reason = "no GPU in this build"))]
pub(crate) struct Launch<'a> {
    /// The rule whose kernel it is; none for those of `norm.h`.
    pub rule: Option<&'static Kernel>,
    pub function: &'a str,
    pub blocks: u32,
    /// Tensors, chunks, rows, norm, sums, out.
    pub buffers: [&'a Tensor; 6],
    pub args: Args,
    /// What the tensors of the table are in.
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads them"))]
    pub written: &'a [Handle],
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads them"))]
    pub read: &'a [Handle],
}

/// As in `launch.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Args {
    pub partials: u64,
    pub len: u64,
    pub flags: u32,
    pub unused: u32,
}
