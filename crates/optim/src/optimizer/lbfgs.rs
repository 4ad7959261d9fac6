//! What L-BFGS remembers, and the direction that it makes of it.

use super::state_dict::{StateDict, mismatch};
use crate::backend::tensors::{copy, read_back};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, VecDeque};

/// A change of the gradient, and the change of the parameters that made it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub grad: Tensor,
    pub step: Tensor,
    /// 1 over their product.
    pub scale: f64,
}

/// What L-BFGS remembers between two evaluations, and from step to step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub pairs: VecDeque<Pair>,
    /// The latest direction, and the gradient where it was taken; none before the first.
    pub latest: Option<(Tensor, Tensor)>,
    /// How far the parameters moved along it.
    pub length: f64,
    /// The first guess of the inverse Hessian, a multiple of the identity.
    pub hessian: f64,
    pub iterations: u64,
}

/// The sum of the products of two vectors, on the host.
pub(super) fn dot(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
    number(&(a * b)?.sum_all()?)
}

pub(super) fn number(scalar: &Tensor) -> candle_core::Result<f64> {
    read_back(scalar)?.to_dtype(DType::F64)?.flatten_all()?.get(0)?.to_scalar()
}

pub(super) fn largest(vector: &Tensor) -> candle_core::Result<f64> {
    number(&vector.abs()?.max_all()?)
}

impl Memory {
    /// The direction from a point with this gradient. It remembers how the gradient has changed.
    pub fn direction(&mut self, grad: &Tensor, most: usize) -> candle_core::Result<Tensor> {
        let Some((direction, last)) = self.latest.take() else {
            (self.pairs, self.hessian) = (VecDeque::new(), 1.0);
            return grad.neg();
        };
        let (change, step) = ((grad - last)?, (direction * self.length)?);
        let product = dot(&change, &step)?;
        if product > 1e-10 {
            while self.pairs.len() >= most {
                self.pairs.pop_front();
            }
            self.hessian = product / dot(&change, &change)?;
            self.pairs.push_back(Pair { grad: change, step, scale: 1.0 / product });
        }
        let mut q = grad.neg()?;
        let mut shares = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let share = dot(&pair.step, &q)? * pair.scale;
            q = (q + (&pair.grad * -share)?)?;
            shares.push(share);
        }
        let mut r = (q * self.hessian)?;
        for (pair, share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            let other = dot(&pair.grad, &r)? * pair.scale;
            r = (r + (&pair.step * (share - other))?)?;
        }
        Ok(r)
    }
}

/// How the keys of its tensors in a saved state begin.
const KEY: &str = "lbfgs";

impl Memory {
    /// Its tensors as a saved state has them: vectors over all parameters that were not frozen, and numbers.
    pub fn save(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let Some((direction, gradient)) = &self.latest else { return Ok(()) };
        let mut numbers = vec![self.length, self.hessian, self.iterations as f64];
        let mut insert = |key: String, tensor: &Tensor| -> Result<()> {
            tensors.insert(format!("{KEY}.{key}"), read_back(&copy(tensor)?)?);
            Ok(())
        };
        insert("direction".into(), direction)?;
        insert("gradient".into(), gradient)?;
        for (k, pair) in self.pairs.iter().enumerate() {
            insert(format!("{k}.gradient"), &pair.grad)?;
            insert(format!("{k}.step"), &pair.step)?;
            numbers.push(pair.scale);
        }
        insert("numbers".into(), &Tensor::new(numbers, &Device::Cpu)?)
    }

    /// What a saved state has of it, for parameters on the device, and how many tensors that are.
    pub fn load(state: &StateDict, device: &Device) -> Result<(Self, usize)> {
        if !state.tensors.contains_key(&format!("{KEY}.numbers")) {
            return Ok((Self::default(), 0));
        }
        let any = |key: &str| {
            let key = format!("{KEY}.{key}");
            state.tensors.get(&key).ok_or_else(|| mismatch(format!("`{key}` is missing")))
        };
        let direction = any("direction")?;
        let vector = |key: &str| -> Result<Tensor> {
            let own = state.tensor(&format!("{KEY}.{key}"), direction.shape(), direction.dtype())?;
            Ok(copy(&own.to_device(device)?)?.detach())
        };
        let numbers = any("numbers")?.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let [length, hessian, iterations, scales @ ..] = &numbers[..] else {
            return Err(mismatch(format!("`{KEY}.numbers` has {} numbers, not at least 3", numbers.len())));
        };
        let pair = |(k, scale): (usize, &f64)| {
            let (grad, step) = (vector(&format!("{k}.gradient"))?, vector(&format!("{k}.step"))?);
            Ok(Pair { grad, step, scale: *scale })
        };
        let pairs = scales.iter().enumerate().map(pair).collect::<Result<VecDeque<_>>>()?;
        let count = 3 + 2 * pairs.len();
        let latest = Some((vector("direction")?, vector("gradient")?));
        Ok((Self { pairs, latest, length: *length, hessian: *hessian, iterations: *iterations as u64 }, count))
    }
}
