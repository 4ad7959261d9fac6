//! Sums of gradients over micro-batches.

use crate::backend::cpu::loops::Term;
use crate::backend::device::tables::Tables;
use crate::backend::step;
use crate::backend::tensors::{copy, to_dtype};
use crate::backend::update::Addition;
use crate::error::Result;
use candle_core::{DType, Tensor, Var};

/// Sums of gradients over micro-batches, in f32 (f64 for f64 gradients).
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    sums: Vec<Option<Var>>,
    pub count: u64,
    tables: Tables,
}

impl Accumulator {
    /// Adds the gradients of a micro-batch, by index of the parameter. Where it fails, nothing was added.
    pub fn add(&mut self, grads: Vec<Option<Tensor>>) -> Result<()> {
        self.sums.resize_with(grads.len(), || None);
        let (mut additions, mut first) = (Vec::new(), Vec::new());
        for (index, (sum, grad)) in self.sums.iter().zip(grads).enumerate() {
            let Some(grad) = grad else { continue };
            match sum {
                Some(to) => {
                    let (to, term) = (to.as_tensor().clone(), Term::Scaled);
                    additions.push(Addition { to, addend: grad, term, scale: 1.0, by_norm: None });
                }
                None => {
                    let dtype = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
                    let wide = if grad.dtype() == dtype { copy(&grad)? } else { to_dtype(&grad, dtype)? };
                    first.push((index, Var::from_tensor(&wide)?));
                }
            }
        }
        step::add(&mut self.tables, additions)?;
        first.into_iter().for_each(|(index, sum)| self.sums[index] = Some(sum));
        self.count += 1;
        Ok(())
    }

    /// The sums by index of the parameter, for ever `None` behind the last that has one.
    pub fn sums(&self) -> impl Iterator<Item = Option<Tensor>> {
        self.sums.iter().map(|sum| sum.as_ref().map(|s| s.as_tensor().clone())).chain(std::iter::repeat(None))
    }

    /// Drops the sum of a parameter.
    pub fn drop_sum(&mut self, index: usize) {
        if let Some(sum) = self.sums.get_mut(index) {
            *sum = None;
        }
    }

    /// Drops all sums.
    pub fn clear(&mut self) {
        self.sums.clear();
        self.count = 0;
    }
}
