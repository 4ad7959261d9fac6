//! How an output that is there already gets into candle's graph.

use super::{
    slot::{Slot, lock},
    table::Entry,
};
#[cfg(feature = "cuda")]
use crate::device;
use crate::shape::error::fail;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, InplaceOp1, Layout, Result, Shape, Storage, Tensor};
use std::sync::Mutex;

/// Takes the storage out of a tensor.
#[derive(Default)]
pub(super) struct TakeStorage(pub(super) Mutex<Option<Storage>>);

impl InplaceOp1 for TakeStorage {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        *lock(&self.0) = Some(Storage::Cpu(std::mem::replace(storage, CpuStorage::U8(Vec::new()))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        *lock(&self.0) = Some(Storage::Cuda(device::cuda::take(storage)?));
        Ok(())
    }
}

/// Makes an output, which is there already, of its token; what candle has added up of its gradient goes into the slot.
pub(super) struct Output {
    pub(super) name: &'static str,
    pub(super) y: Mutex<Option<Storage>>,
    pub(super) shape: Shape,
    pub(super) slot: Slot,
    pub(super) _entry: Entry,
}

impl CustomOp1 for Output {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match lock(&self.y).take() {
            Some(Storage::Cpu(storage)) => Ok((storage, self.shape.clone())),
            _ => fail!("{}: the output is not on the CPU", self.name),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match lock(&self.y).take() {
            Some(Storage::Cuda(storage)) => Ok((storage, self.shape.clone())),
            _ => fail!("{}: the output is not on a GPU", self.name),
        }
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.slot.put(dy.clone())?;
        Ok(Some(token.detach()))
    }
}
