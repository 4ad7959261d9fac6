//! Addresses and launches on Metal devices.
//!
//! The tables hold GPU addresses of buffers, which are resident because candle registers every buffer with its queue (macOS
//! 15 and later).

use super::device::launch::{Launch, Place};
use super::kernel::Kernel;
use super::kernel_source::{self, Language};
use candle_core::backend::BackendStorage;
use candle_core::{Layout, MetalDevice, MetalStorage, Result, Storage, Tensor, bail};
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder, ComputePipeline};
use objc2_metal::{MTLBuffer, MTLCompileOptions, MTLSize};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

/// Threads of a threadgroup, as in `launch.h`.
const THREADS: usize = 256;

pub fn place(storage: &MetalStorage, layout: &Layout) -> Result<Place> {
    let buffer = storage.buffer();
    let address = buffer.as_ref().gpuAddress() + (layout.start_offset() * storage.dtype().size_in_bytes()) as u64;
    Ok(Place { address, handle: Some(buffer.clone()) })
}

/// By device, kernel and function.
type Pipelines = HashMap<(u64, usize, String), ComputePipeline>;
static PIPELINES: LazyLock<Mutex<Pipelines>> = LazyLock::new(Mutex::default);

/// The kernel, built at its first use on a device.
pub fn load(device: &MetalDevice, rule: Option<&'static Kernel>, function: &str) -> Result<ComputePipeline> {
    let device = device.metal_device();
    let mut pipelines = PIPELINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let key = (device.registry_id(), rule.map_or(0, Kernel::address), function.to_string());
    if let Some(pipeline) = pipelines.get(&key) {
        return Ok(pipeline.clone());
    }
    let options = MTLCompileOptions::new();
    #[allow(deprecated, reason = "its successor is not on all systems that candle runs on")]
    options.setFastMathEnabled(false);
    let library = device.new_library_with_source(&kernel_source::of(Language::Metal, rule), Some(&options));
    let library = library.map_err(candle_core::Error::wrap)?;
    let function = library.get_function(function, None).map_err(candle_core::Error::wrap)?;
    let pipeline = device.new_compute_pipeline_state_with_function(&function).map_err(candle_core::Error::wrap)?;
    pipelines.insert(key, pipeline.clone());
    Ok(pipeline)
}

fn buffer(tensor: &Tensor) -> Result<Buffer> {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Metal(storage) => Ok(storage.buffer().clone()),
        _ => bail!("a table that is not on the device"),
    }
}

pub fn launch(device: &MetalDevice, launch: &Launch<'_>) -> Result<()> {
    let pipeline = load(device, launch.rule, launch.function)?;
    let guard = device.command_encoder()?;
    let encoder: &ComputeCommandEncoder = guard.as_ref();
    encoder.set_compute_pipeline_state(&pipeline);
    // Candle orders launches by the buffers that it is told of. Those behind addresses are bound to a place that the next one
    // takes, and which is a table at last.
    for handle in launch.read.iter().flatten() {
        encoder.set_input_buffer(0, Some(handle), 0);
    }
    for handle in launch.written.iter().flatten() {
        encoder.set_output_buffer(0, Some(handle), 0);
    }
    for (index, tensor) in launch.buffers.iter().enumerate() {
        let buffer = buffer(tensor)?;
        // Sums and out are written.
        if index < 4 {
            encoder.set_input_buffer(index, Some(&buffer), 0);
        } else {
            encoder.set_output_buffer(index, Some(&buffer), 0);
        }
    }
    encoder.set_bytes(6, &launch.args);
    let size = |width| MTLSize { width, height: 1, depth: 1 };
    encoder.dispatch_thread_groups(size(launch.blocks as usize), size(THREADS));
    Ok(())
}
