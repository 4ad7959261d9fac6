//! Addresses and launches on CUDA devices.

use super::device::launch::{Args, Launch, Place};
use super::kernel::Kernel;
use super::kernel_source::{self, Language};
use super::nvrtc;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Storage, Tensor, bail};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The kernels of this crate's rules, built by build.rs: `NORM`, and a function from the name of a rule.
mod ptx {
    #![allow(dead_code, reason = "rules are found by name")]
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

/// Threads of a block, as in `launch.h`.
const THREADS: u32 = 256;

// SAFETY: it is plain data of the same layout as in `launch.h`.
unsafe impl DeviceRepr for Args {}

/// The address of a slice's first element and what orders its use with that of other streams, by a method of the slice.
macro_rules! pointer {
    ($slice:expr, $method:ident, $stream:expr, $($Kind:ident)*) => {
        match $slice {
            $(CudaStorageSlice::$Kind(all) => all.$method($stream),)*
            _ => bail!("no address of a tensor of this type"),
        }
    };
}

fn offset(layout: &Layout, storage: &CudaStorage) -> u64 {
    use candle_core::backend::BackendStorage;
    (layout.start_offset() * storage.dtype().size_in_bytes()) as u64
}

/// Where a tensor starts that only this optimizer uses, on its device's stream.
pub fn place(storage: &CudaStorage, layout: &Layout) -> Result<Place> {
    let stream = storage.device.cuda_stream();
    let (start, _use) = pointer!(&storage.slice, device_ptr, &stream, U8 I64 F32 F64 BF16 F16);
    Ok(Place { address: start + offset(layout, storage), handle: Default::default() })
}

/// Calls `f`, whose launches are then ordered with other uses of a parameter that they write and a gradient that they read.
pub fn in_order(param: &mut CudaStorage, grad: &CudaStorage, f: impl FnOnce() -> Result<()>) -> Result<()> {
    let stream = param.device.cuda_stream();
    let (_, _write) = pointer!(&mut param.slice, device_ptr_mut, &stream, F32 F64 BF16 F16);
    let (_, _read) = pointer!(&grad.slice, device_ptr, &stream, F32 F64 BF16 F16);
    f()
}

/// Writes bytes over a tensor of bytes, after the launches that read it.
pub fn refill(storage: &mut CudaStorage, bytes: &[u8]) -> Result<()> {
    let device = storage.device.clone();
    match &mut storage.slice {
        CudaStorageSlice::U8(all) => device.memcpy_htod(bytes, all),
        _ => bail!("tables are bytes"),
    }
}

fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => Ok(place(storage, layout)?.address),
        _ => bail!("a table that is not on the device"),
    }
}

/// A module that candle loads: its name, and its text.
#[derive(Clone)]
struct Module {
    name: Arc<str>,
    ptx: Arc<str>,
}

/// By kernel and compute capability.
type Modules = HashMap<(usize, (i32, i32)), Module>;
static MODULES: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);

/// The module that a rule's kernels are in, or those of `norm.h`. It was built with this crate, or is compiled here.
fn module(device: &CudaDevice, rule: Option<&'static Kernel>) -> Result<Module> {
    let capability = device.cuda_stream().context().compute_capability().w()?;
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (rule.map_or(0, Kernel::address), capability);
    if let Some(known) = modules.get(&key) {
        return Ok(known.clone());
    }
    let module = match rule {
        None => Module { name: "optim-norm".into(), ptx: ptx::NORM.into() },
        Some(rule) => match ptx::rule(rule.name) {
            Some((header, ptx)) if header == (rule.header)() => {
                Module { name: format!("optim-{}", rule.name).into(), ptx: ptx.into() }
            }
            _ => {
                let source = kernel_source::of(Language::Cuda, Some(rule));
                let ptx = nvrtc::compile(rule.name, &source, capability).map_err(Error::msg)?;
                Module { name: format!("optim-own-{}-{:x}", rule.name, rule.address()).into(), ptx: ptx.into() }
            }
        },
    };
    modules.insert(key, module.clone());
    Ok(module)
}

/// Loads a kernel, if it is not loaded yet.
pub fn load(device: &CudaDevice, rule: Option<&'static Kernel>, function: &str) -> Result<()> {
    let Module { name, ptx } = module(device, rule)?;
    device.get_or_load_custom_func(function, &name, &ptx).map(drop)
}

pub fn launch(device: &CudaDevice, launch: &Launch<'_>) -> Result<()> {
    let Launch { rule, function, blocks, buffers, args, .. } = launch;
    let Module { name, ptx } = module(device, *rule)?;
    let function = device.get_or_load_custom_func(function, &name, &ptx)?;
    let addresses = buffers.iter().map(|tensor| address(tensor)).collect::<Result<Vec<_>>>()?;
    let mut builder = function.builder();
    for address in &addresses {
        builder.arg(address);
    }
    builder.arg(args);
    let config = LaunchConfig { grid_dim: (*blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those that all kernels take (`launch.h`). The tables hold the starts and lengths of tensors of
    // the types in the kernel's name, whose storages are locked until it is launched, and of state and sums, which live as
    // long as the optimizer; memory is freed in the order of the stream.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}
