//! Which tensors the kernels run on.

#[cfg(test)]
use super::emulated;
use candle_core::{DType, Tensor};

/// Whether the ops run their kernels on this tensor.
pub(crate) fn has_kernels(tensor: &Tensor) -> bool {
    let is_float = matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::BF16 | DType::F16);
    is_float && tensor.elem_count() > 0 && (tensor.device().is_cuda() || is_emulated())
}

/// Whether tensors on the CPU stand for tensors on a GPU, in a test.
pub(super) fn is_emulated() -> bool {
    #[cfg(test)]
    return emulated::is_on();
    #[cfg(not(test))]
    false
}
