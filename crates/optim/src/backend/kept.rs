//! Factors that stay from update to update: those of formulas whose sums go over all tensors.

use super::device::dispatch::wide_dtype;
use super::kernel::Kernel;
use super::tensors::{allocate, is_gpu, read_back};
use crate::formula::sums::MAX_FACTORS;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::BTreeMap;

/// The factors of each formula by its name, where its tensors are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(BTreeMap<&'static str, Factors>);

#[derive(Clone, Debug)]
enum Factors {
    Host([f64; MAX_FACTORS]),
    Device(Tensor),
}

impl Kept {
    /// The factors on the host; `first` before the first update.
    pub fn on_host(&self, kernel: &Kernel, first: &[f64]) -> [f64; MAX_FACTORS] {
        match self.0.get(kernel.name) {
            Some(Factors::Host(factors)) => *factors,
            _ => padded(first),
        }
    }

    pub fn set_on_host(&mut self, kernel: &Kernel, factors: [f64; MAX_FACTORS]) {
        self.0.insert(kernel.name, Factors::Host(factors));
    }

    /// The factors on a device, which the launches write; `first` before the first update.
    pub fn on_device(&mut self, device: &Device, kernel: &Kernel, first: &[f64]) -> Result<Tensor> {
        if let Some(Factors::Device(factors)) = self.0.get(kernel.name) {
            return Ok(factors.clone());
        }
        let made = self.set_on_device(device, kernel, padded(first))?;
        Ok(made)
    }

    fn set_on_device(&mut self, device: &Device, kernel: &Kernel, factors: [f64; MAX_FACTORS]) -> Result<Tensor> {
        let made = allocate(|| Tensor::new(&factors, &Device::Cpu)?.to_dtype(wide_dtype(device))?.to_device(device))?;
        self.0.insert(kernel.name, Factors::Device(made.clone()));
        Ok(made)
    }

    /// A copy of the factors on the host, where there are any.
    pub fn read(&self, kernel: &Kernel) -> Result<Option<Vec<f64>>> {
        let count = kernel.sums.factors;
        Ok(match self.0.get(kernel.name) {
            None => None,
            Some(Factors::Host(factors)) => Some(factors[..count].to_vec()),
            Some(Factors::Device(factors)) => {
                Some(read_back(&factors.narrow(0, 0, count)?)?.to_dtype(DType::F64)?.to_vec1()?)
            }
        })
    }

    /// Takes factors over.
    pub fn load(&mut self, device: &Device, kernel: &Kernel, factors: &[f64]) -> Result<()> {
        if is_gpu(device) {
            return self.set_on_device(device, kernel, padded(factors)).map(drop);
        }
        self.set_on_host(kernel, padded(factors));
        Ok(())
    }
}

fn padded(factors: &[f64]) -> [f64; MAX_FACTORS] {
    std::array::from_fn(|k| factors.get(k).copied().unwrap_or_default())
}
