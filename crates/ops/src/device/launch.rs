//! What a kernel of `kernels/ops` is given, as `kernels/ops/launch.h` has it.

use super::is_emulated;
use crate::cpu::tensor::fail;
use candle_core::{DType, Device, Result, Shape, Tensor};

/// Threads of a block.
pub(super) const THREADS: usize = 256;
/// Threads of a warp.
pub(super) const WARP: usize = 32;
/// Tensors of a launch, at most.
pub(super) const POINTERS: usize = 9;

/// The arguments of the kernels of a source that are no tensors.
///
/// # Safety
/// It is `Args` of `kernels/ops/MODULE.cu`: plain data in C's layout.
pub(super) unsafe trait Args: Copy {
    /// The source.
    const MODULE: &'static str;
}

/// Declares the [`Args`] of a source.
macro_rules! args {
    ($module:literal, $(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        struct $name {
            $($field: $type),*
        }

        // SAFETY: it has C's layout, and the fields are those of the source.
        unsafe impl crate::device::launch::Args for $name {
            const MODULE: &'static str = $module;
        }
    };
}
pub(super) use args;

/// A launch of the kernel `name` for a dtype: the tensors that it reads, then those that it writes.
pub(super) struct Launch<'a, A> {
    pub name: &'static str,
    pub dtype: DType,
    pub args: A,
    pub inputs: &'a [Option<&'a Tensor>],
    pub outputs: &'a [Option<&'a Tensor>],
}

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
            Device::Cuda(device) => unsafe { super::cuda::launch(device, self, blocks as u32) },
            #[cfg(test)]
            // SAFETY: what the caller promises.
            Device::Cpu => unsafe { super::emulated::launch(self, blocks as u32) },
            _ => fail!("{} has no kernel for {:?}", self.name, device.location()),
        }
    }

    /// The kernel's name.
    pub fn function(&self) -> String {
        let suffix = match self.dtype {
            DType::F64 => "f64",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            _ => "f32",
        };
        format!("{}_{suffix}", self.name)
    }
}

/// The dtype that the kernels compute this one in.
pub(super) fn real(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
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

/// How rows are shared between threads.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub per_row: u32,
    pub blocks: usize,
}

impl Rows {
    /// A warp for a short row, else a block.
    pub fn new(rows: usize, width: usize) -> Self {
        let per_row = if width <= 1024 { WARP } else { THREADS };
        Self { per_row: per_row as u32, blocks: rows.div_ceil(THREADS / per_row) }
    }
}

/// A size as kernels take it.
pub(super) fn size(op: &str, name: &str, value: usize) -> Result<u32> {
    match u32::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => fail!("{op}: {value} {name} are too many for a GPU, which takes at most {}", u32::MAX),
    }
}
