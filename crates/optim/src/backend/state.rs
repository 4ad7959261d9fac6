//! The state of a parameter, on its device.

use super::cpu::numbers::Compute;
use super::cpu::operands::{Operands, Source, Target};
use super::device::state::DeviceState;
use super::pages::{copy_of, zeros};
use super::tensors::{is_gpu, read_back};
use candle_core::{DType, Device, Result, Shape, Tensor, Var, WithDType};
use rayon::prelude::*;

/// Numbers that a thread copies at a time.
const PART: usize = 16_384;

/// The state of a parameter in the number type that it is computed in.
#[derive(Debug)]
pub(crate) enum State {
    F32(Buffers<f32>),
    F64(Buffers<f64>),
    Device(DeviceState),
}

/// The state of a parameter on the CPU: a flat buffer per slot.
#[derive(Debug, Default)]
pub(crate) struct Buffers<R> {
    pub slots: Vec<Vec<R>>,
    /// The parameter in full precision, where it has 16 bits and the user wants that.
    pub master: Option<Vec<R>>,
}

impl State {
    /// No slots yet. Parameters of type f64 are computed in f64, all others in f32.
    pub fn new(var: &Var) -> Self {
        if is_gpu(var.device()) {
            State::Device(DeviceState::default())
        } else if var.dtype() == DType::F64 {
            State::F64(Buffers::default())
        } else {
            State::F32(Buffers::default())
        }
    }

    /// With these values.
    pub fn with(var: &Var, slots: Vec<Tensor>, master: Option<Tensor>) -> Result<Self> {
        Ok(match Self::new(var) {
            State::Device(_) => State::Device(DeviceState::new(var, slots, master)?),
            State::F32(_) => State::F32(Buffers::with(&slots, master.as_ref())?),
            State::F64(_) => State::F64(Buffers::with(&slots, master.as_ref())?),
        })
    }

    /// Copies of the slots and of the master copy, on the host.
    pub fn tensors(&self, var: &Var) -> Result<(Vec<Tensor>, Option<Tensor>)> {
        let shape = var.shape();
        match self {
            State::F32(buffers) => buffers.tensors(shape),
            State::F64(buffers) => buffers.tensors(shape),
            State::Device(rows) => {
                let on_host = |row: Tensor| read_back(&row)?.reshape(shape);
                let slots = rows.slots(var)?.into_iter().map(on_host).collect::<Result<_>>()?;
                Ok((slots, rows.master(var)?.map(on_host).transpose()?))
            }
        }
    }

    /// A state whose slots are those named `new`: those that this one has, named `old`, keep their values, others start at 0.
    /// With `add_master` there is room for a master copy, which the update fills from the parameter.
    pub fn refit(&self, var: &Var, old: &[&str], new: &[&str], add_master: bool) -> Result<Self> {
        Ok(match self {
            State::F32(buffers) => State::F32(buffers.refit(old, new, var.elem_count(), add_master)),
            State::F64(buffers) => State::F64(buffers.refit(old, new, var.elem_count(), add_master)),
            State::Device(rows) => State::Device(rows.refit(var, old, new, add_master)?),
        })
    }

    /// The master copy, where there is one: on a GPU itself, on the host a copy of it.
    pub fn master(&self, var: &Var) -> Result<Option<Tensor>> {
        match self {
            State::F32(Buffers { master: Some(master), .. }) => {
                Ok(Some(Tensor::from_slice(master, var.shape(), &Device::Cpu)?))
            }
            State::F32(_) | State::F64(_) => Ok(None),
            State::Device(rows) => rows.master(var)?.map(|row| row.reshape(var.shape())).transpose(),
        }
    }

    /// The values of a slot: on a GPU itself, on the host a copy.
    pub fn slot(&self, var: &Var, at: usize) -> Result<Tensor> {
        match self {
            State::F32(buffers) => Tensor::from_slice(&buffers.slots[at], var.shape(), &Device::Cpu),
            State::F64(buffers) => Tensor::from_slice(&buffers.slots[at], var.shape(), &Device::Cpu),
            State::Device(rows) => rows.slots(var)?[at].reshape(var.shape()),
        }
    }

    /// Writes the master copy, where there is one on the host.
    pub fn set_master(&mut self, values: &Tensor) -> Result<()> {
        if let State::F32(Buffers { master: Some(master), .. }) = self {
            *master = values.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }

    /// Takes the values of the slots of a state with as many, where both are on the CPU and alike; else nothing changes, and it is
    /// false.
    pub fn copy_slots(&mut self, from: &State) -> bool {
        match (self, from) {
            (State::F32(to), State::F32(from)) => to.copy_slots(from),
            (State::F64(to), State::F64(from)) => to.copy_slots(from),
            _ => false,
        }
    }

    /// The buffers of a state on the CPU that is in f32.
    pub fn f32_buffers(&mut self) -> Option<&mut Buffers<f32>> {
        if let State::F32(buffers) = self { Some(buffers) } else { None }
    }

    /// The same in f64.
    pub fn f64_buffers(&mut self) -> Option<&mut Buffers<f64>> {
        if let State::F64(buffers) = self { Some(buffers) } else { None }
    }

    pub fn has_master(&self) -> bool {
        match self {
            State::F32(buffers) => buffers.master.is_some(),
            State::F64(_) => false,
            State::Device(rows) => rows.has_master,
        }
    }
}

impl<R: Compute + WithDType> Buffers<R> {
    fn with(slots: &[Tensor], master: Option<&Tensor>) -> Result<Self> {
        let values = |tensor: &Tensor| Ok(copy_of(&tensor.flatten_all()?.to_vec1()?));
        let slots = slots.iter().map(values).collect::<Result<_>>()?;
        Ok(Self { slots, master: master.map(values).transpose()? })
    }

    fn tensors(&self, shape: &Shape) -> Result<(Vec<Tensor>, Option<Tensor>)> {
        let tensor = |values: &Vec<R>| Tensor::from_slice(values, shape, &Device::Cpu);
        Ok((self.slots.iter().map(tensor).collect::<Result<_>>()?, self.master.as_ref().map(tensor).transpose()?))
    }

    fn copy_slots(&mut self, from: &Self) -> bool {
        let lens = |all: &Self| all.slots.iter().map(Vec::len).collect::<Vec<_>>();
        let is_alike = lens(self) == lens(from);
        if is_alike {
            for (to, from) in self.slots.iter_mut().zip(&from.slots) {
                to.par_chunks_mut(PART).zip(from.par_chunks(PART)).for_each(|(to, from)| to.copy_from_slice(from));
            }
        }
        is_alike
    }

    fn refit(&self, old: &[&str], new: &[&str], len: usize, add_master: bool) -> Self {
        let slot = |name: &&str| match old.iter().position(|o| o == name) {
            Some(at) => copy_of(&self.slots[at]),
            None => zeros(len),
        };
        let master = match &self.master {
            Some(master) => Some(copy_of(master)),
            None => add_master.then(|| zeros(len)),
        };
        Self { slots: new.iter().map(slot).collect(), master }
    }

    pub fn operands<'a>(
        &'a mut self,
        param: Target<'a, R>,
        grad: Source<'a, R>,
        noise: Option<u64>,
    ) -> Operands<'a, R> {
        let mut slots = self.slots.iter_mut();
        Operands {
            param,
            master: self.master.as_deref_mut(),
            grad,
            slots: std::array::from_fn(|_| slots.next().map(Vec::as_mut_slice).unwrap_or_default()),
            noise,
            start: 0,
        }
    }
}
