//! Which backend a device has.

use super::launch::{Launch, Place};
#[cfg(feature = "cuda")]
use crate::backend::cuda;
#[cfg(test)]
use crate::backend::emulated;
use crate::backend::kernel::Kernel;
#[cfg(feature = "metal")]
use crate::backend::metal;
use crate::backend::tensors::allocate;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};

/// The kernels' type `wide`.
pub(crate) fn wide_dtype(device: &Device) -> DType {
    #[cfg(test)]
    if emulated::is_metal() {
        return DType::F32;
    }
    if device.is_metal() { DType::F32 } else { DType::F64 }
}

/// Loads a kernel, so that it can be started.
#[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(unused_variables, reason = "no GPU in this build"))]
pub(crate) fn load(device: &Device, rule: Option<&'static Kernel>, function: &str) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::load(device, rule, function),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal::load(device, rule, function).map(drop),
        _ => Ok(()),
    }
}

/// Starts a kernel.
pub(crate) fn launch(device: &Device, launch: &Launch<'_>) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::launch(device, launch),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal::launch(device, launch),
        #[cfg(test)]
        Device::Cpu => emulated::launch(launch),
        _ => bail!("`{}` has no kernel for {:?}", launch.function, device.location()),
    }
}

/// Where a tensor starts on its device.
pub(crate) fn place_of(tensor: &Tensor) -> Result<Place> {
    let (storage, _layout) = tensor.storage_and_layout();
    match &*storage {
        #[cfg(feature = "cuda")]
        candle_core::Storage::Cuda(storage) => cuda::place(storage, _layout),
        #[cfg(feature = "metal")]
        candle_core::Storage::Metal(storage) => metal::place(storage, _layout),
        #[cfg(test)]
        candle_core::Storage::Cpu(storage) => emulated::place(storage, _layout),
        _ => bail!("a tensor on {:?} has no address", tensor.device().location()),
    }
}

/// Replaces a tensor of bytes: in its memory where the device orders that after the launches that read it.
pub(crate) fn refill(tensor: &mut Tensor, bytes: &[u8]) -> Result<()> {
    if tensor.device().is_cuda() && tensor.elem_count() == bytes.len() {
        return tensor.inplace_op1(&Refill(bytes));
    }
    *tensor = allocate(|| Tensor::from_slice(bytes, bytes.len(), tensor.device()))?;
    Ok(())
}

#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "CUDA alone reads it"))]
struct Refill<'a>(&'a [u8]);

impl InplaceOp1 for Refill<'_> {
    fn name(&self) -> &'static str {
        "optimizer-tables"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("tables are of GPUs")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        cuda::refill(storage, self.0)
    }
}
