//! Which side computes an op.

use crate::{
    cpu::tensor::{cpu_supports, cpu_supports_f32, is_half_on_cpu},
    device::kernels::has_kernels,
};
use candle_core::Tensor;

/// Where an op of a tensor is computed.
pub(crate) enum Side {
    /// The kernels compute it, on the tensor's device.
    Device,
    /// The loops on the CPU compute it.
    Cpu,
    /// The tensor is on the CPU in half precision. Where the op sums, the loops compute it in f32, and the result is rounded: candle
    /// would sum in half precision, and lacks some operations.
    CpuInF32,
    /// candle's own operations compute it.
    Candle,
}

impl Side {
    /// The side of an op whose loops are for f32 and f64.
    pub(crate) fn of(x: &Tensor) -> Self {
        Self::choose(x, cpu_supports)
    }

    /// The side of an op whose loops are for f32 alone.
    pub(crate) fn of_f32(x: &Tensor) -> Self {
        Self::choose(x, cpu_supports_f32)
    }

    fn choose(x: &Tensor, cpu_supports: fn(&Tensor) -> bool) -> Self {
        match x {
            x if has_kernels(x) => Self::Device,
            x if cpu_supports(x) => Self::Cpu,
            x if is_half_on_cpu(x) => Self::CpuInF32,
            _ => Self::Candle,
        }
    }
}
