//! Launches on CUDA devices.

use super::launch::{Args, Launch, POINTERS, THREADS};
use crate::shape::error::fail;
use candle_core::{
    CudaDevice, CudaStorage, Result, Storage, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaStorageSlice, WrapErr,
        cudarc::driver::{DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg},
    },
};

/// The kernels, built by build.rs: `module`, a function from the name of a source to its PTX.
mod ptx {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

/// The addresses of a launch's tensors.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pointers([u64; POINTERS]);

// SAFETY: it is plain data, `Pointers` of `launch.h`.
unsafe impl DeviceRepr for Pointers {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<A>(A);

// SAFETY: it is plain data, as `Args` promises.
unsafe impl<A: Args> DeviceRepr for Plain<A> {}

/// Where the first element of a tensor is.
fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { fail!("a tensor of shape {:?} is not on a GPU", tensor.shape()) };
    let stream = storage.device().cuda_stream();
    macro_rules! start {
        ($($Kind:ident)*) => {
            match &storage.slice {
                $(CudaStorageSlice::$Kind(all) => all.device_ptr(&stream).0,)*
                _ => fail!("a tensor of {:?} is none of a kernel", tensor.dtype()),
            }
        };
    }
    Ok(start!(U32 F32 F64 BF16 F16) + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

/// # Safety
/// As [`Launch::run`].
pub(super) unsafe fn launch<A: Args>(device: &CudaDevice, launch: &Launch<'_, A>, blocks: u32) -> Result<()> {
    let mut pointers = Pointers([0; POINTERS]);
    for (pointer, tensor) in pointers.0.iter_mut().zip(launch.inputs.iter().chain(launch.outputs)) {
        *pointer = tensor.map_or(Ok(0), address)?;
    }
    let function =
        device.get_or_load_custom_func(&launch.function(), &format!("ops-{}", A::MODULE), ptx::module(A::MODULE))?;
    let args = Plain(launch.args);
    let mut builder = function.builder();
    builder.arg(&pointers);
    builder.arg(&args);
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: all kernels take these two arguments, and the rest is what the caller promises. The tensors live while it is
    // started, and memory is freed in the order of the device's one stream.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Moves the elements out of a storage.
pub(crate) fn take(storage: &mut CudaStorage) -> Result<CudaStorage> {
    let device = storage.device().clone();
    // Memory of length 0 is none on some devices.
    // SAFETY: nothing reads it.
    let nothing = CudaStorageSlice::U8(unsafe { device.alloc::<u8>(1)? });
    Ok(CudaStorage { slice: std::mem::replace(&mut storage.slice, nothing), device })
}
