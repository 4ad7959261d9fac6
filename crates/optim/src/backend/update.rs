//! What is to be done to parameters, as data.

use super::cpu::loops::Term;
use super::cpu::numbers::StepNumbers;
use super::kernel::Kernel;
use super::state::State;
use super::tensors::read_back;
use candle_core::{DType, Result, Tensor, Var};

/// An update of one parameter. The gradient is contiguous and has the parameter's device and shape, and its dtype or f32.
pub(crate) struct Update<'a> {
    pub param: &'a Var,
    pub grad: Tensor,
    pub state: &'a mut State,
    pub kernel: &'static Kernel,
    pub scalars: Vec<f64>,
    pub numbers: StepNumbers<f64>,
    /// Whether the norm of the step, where it is on the device, scales the gradient too.
    pub by_norm: bool,
    /// The key of the random numbers of stochastic rounding.
    pub noise: Option<u64>,
}

impl Update<'_> {
    /// Whether a first pass takes sums.
    pub fn measures(&self) -> bool {
        !self.kernel.sums.is_none() || self.numbers.cautious
    }
}

/// What to add to a tensor: a term of the addend, with a scale that is first divided by a norm plus a number, where that is given.
pub(crate) struct Addition {
    pub to: Tensor,
    pub addend: Tensor,
    pub term: Term,
    pub scale: f64,
    pub by_norm: Option<(Norm, f64)>,
}

/// A norm, on the host or still on the device.
#[derive(Clone, Debug)]
pub(crate) enum Norm {
    Host(f64),
    /// The norm, and by what the gradients are multiplied.
    Device(Tensor),
}

impl Norm {
    /// The norm. It waits for the device.
    pub fn read(&self) -> Result<f64> {
        match self {
            Norm::Host(norm) => Ok(*norm),
            Norm::Device(out) => read_back(&out.narrow(0, 0, 1)?)?.squeeze(0)?.to_dtype(DType::F64)?.to_scalar(),
        }
    }
}
