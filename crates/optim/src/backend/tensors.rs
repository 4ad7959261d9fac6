//! What is done to whole tensors: copies, comparison, slices.

#[cfg(test)]
use super::{allocations, emulated};
use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};
use std::cell::Cell;

thread_local!(static READ_BACK: Cell<u64> = const { Cell::new(0) });

/// Copies a tensor to the host.
pub(crate) fn read_back(tensor: &Tensor) -> Result<Tensor> {
    READ_BACK.set(READ_BACK.get() + 1);
    tensor.to_device(&Device::Cpu)
}

/// How often this thread has copied something to the host. A step must not change it.
pub(crate) fn read_backs() -> u64 {
    READ_BACK.get()
}

/// `chosen` where `now` has the bits of `then`, `now` elsewhere. The three have one shape and type.
pub(crate) fn where_same(now: &Tensor, then: &Tensor, chosen: &Tensor) -> Result<Tensor> {
    if now.device().is_cpu() && same_bits(now, then)? {
        return Ok(chosen.clone());
    }
    // NaN is the only value that is not equal to itself.
    let both_nan = (now.ne(now)? * then.ne(then)?)?;
    allocate(|| (now.eq(then)? + both_nan)?.where_cond(chosen, now))
}

/// Whether two tensors on the CPU are the same, bit by bit.
fn same_bits(a: &Tensor, b: &Tensor) -> Result<bool> {
    let ((a, a_layout), (b, b_layout)) = (a.storage_and_layout(), b.storage_and_layout());
    macro_rules! same {
        ($($Kind:ident),*) => {
            match (&*a, &*b) {
                $((Storage::Cpu(CpuStorage::$Kind(a)), Storage::Cpu(CpuStorage::$Kind(b))) => {
                    let (a, b) = (slice(a, a_layout)?, slice(b, b_layout)?);
                    // A branch for a block, not for each number: it is compared at the memory's speed.
                    let mut blocks = a.chunks(1024).zip(b.chunks(1024));
                    blocks.all(|(a, b)| a.iter().zip(b).fold(true, |same, (a, b)| same & (a.to_bits() == b.to_bits())))
                })*
                _ => bail!("two tensors of different types"),
            }
        };
    }
    Ok(same!(F32, F64, BF16, F16))
}

/// Whether its tensors are updated by the kernels for GPUs.
pub(crate) fn is_gpu(device: &Device) -> bool {
    #[cfg(test)]
    if emulated::is_on() {
        return true;
    }
    !device.is_cpu()
}

/// Makes a tensor, for which there may be no memory. Tests let it fail.
pub(crate) fn allocate(make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    #[cfg(test)]
    allocations::count()?;
    make()
}

/// A contiguous copy, with a storage of its own.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    allocate(|| tensor.force_contiguous())
}

/// A copy in another type; also of an empty tensor, for which CUDA starts no kernel.
pub(crate) fn to_dtype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    allocate(|| match tensor.elem_count() {
        0 => Tensor::zeros(tensor.shape(), dtype, tensor.device()),
        _ => tensor.to_dtype(dtype),
    })
}

/// The slice of a contiguous tensor.
pub(crate) fn slice<'a, T>(all: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("a gradient is not contiguous"),
    }
}

/// The same to write.
pub(crate) fn slice_mut<'a, T>(all: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut all[start..end]),
        None => bail!("a parameter is not contiguous"),
    }
}

/// What tells whether two tensors share storage: they must not be locked at the same time.
pub(crate) fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref::<Storage>(&storage).addr()
}
