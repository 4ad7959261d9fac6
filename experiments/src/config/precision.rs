//! The number formats that a model computes in.

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// What activations, and the products of matrices and convolutions, are computed in. Parameters, their gradients, the optimizer, the
/// statistics of batch norm and the loss are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All in f32.
    #[default]
    F32,
    /// f32, whose factors NVIDIA's GPUs round to TF32, 10 bits behind the point.
    Tf32,
    /// Mixed precision: activations are bf16, and f32 parameters are rounded to it where they are used. On the CPU this is slow, and
    /// shows what the rounding does.
    Bf16,
}

impl Precision {
    /// The type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Sets the products of f32 of this process, which are a switch of candle's.
    ///
    /// # Errors
    /// TF32 is asked for on a device that has none.
    pub fn set(self, device: &Device) -> Result<()> {
        if self == Self::Tf32 && !device.is_cuda() {
            bail!("precision `tf32` needs the device cuda; on others it may be f32 or bf16");
        }
        #[cfg(feature = "cuda")]
        candle_core::cuda_backend::set_gemm_reduced_precision_f32(self == Self::Tf32);
        Ok(())
    }
}
