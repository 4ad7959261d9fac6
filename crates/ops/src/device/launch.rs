//! What a kernel of `kernels/ops` is given, as `kernels/ops/launch.h` has it.

use crate::shape::error::fail;
use candle_core::{DType, Result, Tensor};

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

/// How rows are shared between threads.
#[derive(Clone, Copy)]
pub(super) struct RowThreads {
    pub per_row: u32,
    pub blocks: usize,
}

impl RowThreads {
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
