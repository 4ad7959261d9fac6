//! How the storages of many tensors are reached at once.
//!
//! candle lets an outside crate write a tensor only inside an in-place operation on that one tensor. To update all
//! tensors in one pass, the operations are nested: each hands on what the outer ones collected, and the innermost runs
//! with every tensor's storage at hand.

use super::cpu::operands::{Source, Target};
#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(test)]
use super::emulated;
use super::tensors::{slice, slice_mut};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "metal")]
use candle_core::MetalStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use std::cell::Cell;

/// Tensors written in one nest, and by one launch. A level takes up to 3 KB of stack in a debug build and threads have 2 MiB.
pub(crate) const TENSORS_PER_LAUNCH: usize = 256;

/// The elements of a parameter and of its gradient, or of two tensors one of which is added to the other.
pub(crate) enum Pair<'a> {
    F32(Target<'a, f32>, Source<'a, f32>),
    F64(Target<'a, f64>, Source<'a, f64>),
    /// On a GPU, where they are locked for the launches.
    #[cfg_attr(not(any(test, feature = "cuda", feature = "metal")), allow(dead_code, reason = "no GPU in this build"))]
    Device,
}

impl<'a> Pair<'a> {
    fn new(param: &'a mut CpuStorage, pl: &Layout, grad: &'a CpuStorage, gl: &Layout) -> Result<Self> {
        use CpuStorage::{BF16, F16, F32, F64};
        Ok(match (param, grad) {
            (F64(p), F64(g)) => Pair::F64(Target::Same(slice_mut(p, pl)?), Source::Same(slice(g, gl)?)),
            (F32(p), F32(g)) => Pair::F32(Target::Same(slice_mut(p, pl)?), Source::Same(slice(g, gl)?)),
            (BF16(p), BF16(g)) => Pair::F32(Target::Bf16(slice_mut(p, pl)?), Source::Bf16(slice(g, gl)?)),
            (BF16(p), F32(g)) => Pair::F32(Target::Bf16(slice_mut(p, pl)?), Source::Same(slice(g, gl)?)),
            (F16(p), F16(g)) => Pair::F32(Target::F16(slice_mut(p, pl)?), Source::F16(slice(g, gl)?)),
            // Sums of gradients.
            (F32(p), BF16(g)) => Pair::F32(Target::Same(slice_mut(p, pl)?), Source::Bf16(slice(g, gl)?)),
            (F32(p), F16(g)) => Pair::F32(Target::Same(slice_mut(p, pl)?), Source::F16(slice(g, gl)?)),
            (F16(p), F32(g)) => Pair::F32(Target::F16(slice_mut(p, pl)?), Source::Same(slice(g, gl)?)),
            (p, g) => bail!("no update of a {:?} parameter with a {:?} gradient", p.dtype(), g.dtype()),
        })
    }
}

/// Calls `work` with the elements of all tensors, in order, `TENSORS_PER_LAUNCH` tensors at a time.
pub(crate) fn with_elements(
    tensors: &[(&Tensor, Tensor)],
    mut work: impl FnMut(Vec<Pair<'_>>) -> Result<()>,
) -> Result<()> {
    tensors.chunks(TENSORS_PER_LAUNCH).try_for_each(|part| nest(part, Vec::with_capacity(part.len()), &mut work))
}

type WorkFn<'w> = &'w mut dyn FnMut(Vec<Pair<'_>>) -> Result<()>;

/// Collects the elements of all tensors and calls `work`.
fn nest(tensors: &[(&Tensor, Tensor)], collected: Vec<Pair<'_>>, work: WorkFn<'_>) -> Result<()> {
    match tensors {
        [] => work(collected),
        [(param, grad), rest @ ..] => {
            let (collected, work) = (Cell::new(collected), Cell::new(Some(work)));
            param.inplace_op2(grad, &Level { rest, collected, work })
        }
    }
}

/// A level of the nest.
struct Level<'a, 'w> {
    rest: &'a [(&'a Tensor, Tensor)],
    collected: Cell<Vec<Pair<'a>>>,
    work: Cell<Option<WorkFn<'w>>>,
}

impl Level<'_, '_> {
    fn go_on(&self, pair: Pair<'_>) -> Result<()> {
        // Moving the vector out of its cell lets the lifetime of its elements shrink to that of this level.
        let mut collected: Vec<Pair<'_>> = self.collected.take();
        collected.push(pair);
        match self.work.take() {
            Some(work) => nest(self.rest, collected, work),
            None => bail!("a level of the nest runs once"),
        }
    }
}

impl InplaceOp2 for Level<'_, '_> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, pl: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<()> {
        #[cfg(test)]
        if emulated::is_on() {
            return self.go_on(Pair::Device);
        }
        self.go_on(Pair::new(param, pl, grad, gl)?)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, param: &mut CudaStorage, _: &Layout, grad: &CudaStorage, _: &Layout) -> Result<()> {
        cuda::in_order(param, grad, || self.go_on(Pair::Device))
    }

    #[cfg(feature = "metal")]
    fn metal_fwd(&self, _: &mut MetalStorage, _: &Layout, _: &MetalStorage, _: &Layout) -> Result<()> {
        self.go_on(Pair::Device)
    }
}
