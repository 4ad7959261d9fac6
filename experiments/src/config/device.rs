//! Where tensors live.

use super::names;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use std::{fmt, str::FromStr};

/// A device by name: `cpu`, `cuda` (the first), `cuda:INDEX` or `metal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build lacks the device's feature, or the machine the device.
    pub fn open(self) -> Result<Device> {
        let device = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                bail!("device `{self}`: this build has no CUDA; build with `--features cuda`")
            }
            Self::Metal if !candle_core::utils::metal_is_available() => {
                bail!("device `{self}`: this build has no Metal; build with `--features metal`")
            }
            Self::Cuda(index) => Device::new_cuda(index),
            Self::Metal => Device::new_metal(0),
        };
        device.with_context(|| format!("device `{self}` cannot be opened"))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match (name, name.strip_prefix("cuda:")) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("metal", _) => Ok(Self::Metal),
            (_, Some(index)) => match index.parse() {
                Ok(index) => Ok(Self::Cuda(index)),
                Err(_) => bail!("device `{name}`: the index must be a whole number, as in `cuda:1`"),
            },
            _ => Err(names::unknown("device", name, ["cpu", "cuda", "cuda:INDEX", "metal"])),
        }
    }
}
