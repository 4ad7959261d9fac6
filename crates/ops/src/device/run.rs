//! Runs a launch where its tensors are.

#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(test)]
use super::emulated;
use super::{
    kernels::is_emulated,
    launch::{Args, Launch, POINTERS},
};
use crate::shape::error::fail;
use candle_core::{DType, Device, Result, Shape, Tensor};

impl<A: Args> Launch<'_, A> {
    /// Starts as many blocks.
    ///
    /// # Safety
    /// What the kernel reads and writes with these arguments and blocks lies in its tensors, which have the dtypes that it takes
    /// them for, and what it writes is in use nowhere else.
    pub unsafe fn run(&self, blocks: usize) -> Result<()> {
        let tensors = self.inputs.iter().chain(self.outputs);
        assert!(tensors.clone().count() <= POINTERS, "{} has too many tensors", self.name);
        if let Some(tensor) = tensors.flatten().find(|tensor| !tensor.is_contiguous()) {
            fail!("{}: a tensor of shape {:?} is not contiguous", self.name, tensor.shape());
        }
        let Ok(blocks) = i32::try_from(blocks) else {
            fail!("{}: {blocks} blocks are more than a launch has", self.name);
        };
        if blocks == 0 {
            return Ok(());
        }
        let Some(device) = self.outputs.iter().flatten().next().map(|tensor| tensor.device()) else { return Ok(()) };
        match device {
            #[cfg(feature = "cuda")]
            // SAFETY: what the caller promises.
            Device::Cuda(device) => unsafe { cuda::launch(device, self, blocks as u32) },
            #[cfg(test)]
            // SAFETY: what the caller promises.
            Device::Cpu => unsafe { emulated::launch(self, blocks as u32) },
            _ => fail!("{} has no kernel for {:?}", self.name, device.location()),
        }
    }
}

/// A new tensor, for a kernel to write.
pub(super) fn empty(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    if is_emulated() {
        return Tensor::full(f32::NAN, shape, device)?.to_dtype(dtype);
    }
    if device.is_cpu() {
        fail!("a tensor on the CPU is no output of a kernel");
    }
    // SAFETY: it is memory of a GPU, which no code reads before the kernel has written it.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// As `x`.
pub(super) fn empty_like(x: &Tensor) -> Result<Tensor> {
    empty(x.shape(), x.dtype(), x.device())
}
