//! The state of a parameter on a GPU.

use crate::backend::tensors::allocate;
use candle_core::{DType, Device, Result, Shape, Tensor, Var};

/// The state of a parameter on its device: rows of one tensor, each of `stride` numbers, so that it starts at a multiple of
/// 16 bytes. First the slots, then the master copy.
#[derive(Debug, Default)]
pub(crate) struct DeviceState {
    pub values: Option<Tensor>,
    slots: usize,
    pub has_master: bool,
}

fn dtype_of_state(var: &Var) -> DType {
    if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// How far apart rows of `len` numbers are.
pub(crate) fn stride(len: usize) -> usize {
    len.next_multiple_of(4)
}

impl DeviceState {
    /// Rows with the given values.
    pub fn new(var: &Var, slots: Vec<Tensor>, master: Option<Tensor>) -> Result<Self> {
        Self::with_rows(var, slots.into_iter().map(Some).collect(), master.map(Some))
    }

    /// Rows with the given values, 0 where there are none.
    fn with_rows(var: &Var, slots: Vec<Option<Tensor>>, master: Option<Option<Tensor>>) -> Result<Self> {
        let (count, has_master) = (slots.len(), master.is_some());
        let rows: Vec<_> = slots.into_iter().chain(master).collect();
        let len = var.elem_count();
        let values = if rows.is_empty() || len == 0 {
            None
        } else {
            let dtype = dtype_of_state(var);
            let zeros = |shape: Shape| allocate(|| Tensor::zeros(shape, dtype, var.device()));
            Some(if rows.iter().all(Option::is_none) {
                zeros((rows.len(), stride(len)).into())?
            } else {
                let row = |row: Option<Tensor>| match row {
                    None => zeros(stride(len).into()),
                    Some(row) => row.flatten_all()?.to_device(var.device())?.to_dtype(dtype)?.pad_with_zeros(
                        0,
                        0,
                        stride(len) - len,
                    ),
                };
                let rows = rows.into_iter().map(row).collect::<Result<Vec<_>>>()?;
                allocate(|| Tensor::stack(&rows, 0))?
            })
        };
        Ok(Self { values, slots: count, has_master })
    }

    fn row(&self, at: usize, var: &Var) -> Result<Tensor> {
        match &self.values {
            Some(values) => values.narrow(0, at, 1)?.narrow(1, 0, var.elem_count())?.flatten_all(),
            // The parameter is empty.
            None => Tensor::zeros(0, dtype_of_state(var), &Device::Cpu),
        }
    }

    /// The values of the slots.
    pub fn slots(&self, var: &Var) -> Result<Vec<Tensor>> {
        (0..self.slots).map(|slot| self.row(slot, var)).collect()
    }

    /// The values of the master copy.
    pub fn master(&self, var: &Var) -> Result<Option<Tensor>> {
        self.has_master.then(|| self.row(self.slots, var)).transpose()
    }

    /// As [`State::refit`](crate::backend::state::State::refit).
    pub fn refit(&self, var: &Var, old: &[&str], new: &[&str], add_master: bool) -> Result<Self> {
        let known: Vec<_> = old.iter().zip(self.slots(var)?).collect();
        let slot = |name: &&str| known.iter().find(|(o, _)| *o == name).map(|(_, values)| values.clone());
        let master = match self.master(var)? {
            Some(master) => Some(Some(master)),
            None => add_master.then_some(None),
        };
        Self::with_rows(var, new.iter().map(slot).collect(), master)
    }
}
