//! How updates reach the storage of candle's tensors.
//!
//! candle lets an outside crate write a tensor only inside an in-place operation on that one tensor. To update all
//! tensors in one pass, the operations are nested: each hands on what the outer ones collected, and the innermost runs
//! with every tensor's storage at hand.

pub(crate) mod cpu;

use crate::rule::Kernel;
use crate::wrappers::TrustRatio;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Storage, Tensor, Var, bail};
pub(crate) use cpu::Pass;
use cpu::{Compute, Job, Operands, Source, Target};
use std::cell::Cell;

/// Tensors written in one nest. A level takes up to 3 KB of stack in a debug build and threads have 2 MiB.
const NEST: usize = 256;

/// The state of a parameter in the number type that it is computed in.
#[derive(Debug)]
pub(crate) enum State {
    F32(Buffers<f32>),
    F64(Buffers<f64>),
}

/// The state of a parameter: a flat buffer per slot.
#[derive(Debug, Default)]
pub(crate) struct Buffers<R> {
    pub slots: Vec<Vec<R>>,
    /// The parameter in full precision, where it has 16 bits and the user wants that.
    pub master: Option<Vec<R>>,
    /// Scratch of the trust ratio.
    pub direction: Vec<R>,
}

impl State {
    /// No slots yet. Parameters of type f64 are computed in f64, all others in f32.
    pub fn new(dtype: DType) -> Self {
        if dtype == DType::F64 { State::F64(Buffers::default()) } else { State::F32(Buffers::default()) }
    }
}

impl<R: Compute> Buffers<R> {
    /// Changes the slots from those named `old` to those named `new`, which keep their values or start at 0.
    pub fn fit(&mut self, old: &[&str], new: &[&str], len: usize) {
        let mut known: Vec<_> = old.iter().zip(std::mem::take(&mut self.slots)).collect();
        self.slots = new
            .iter()
            .map(|name| match known.iter().position(|(o, _)| *o == name) {
                Some(at) => known.swap_remove(at).1,
                None => vec![R::default(); len],
            })
            .collect();
    }

    fn operands<'a>(
        &'a mut self,
        param: Target<'a, R>,
        grad: Source<'a, R>,
        len: usize,
        ratio: Option<TrustRatio>,
    ) -> Operands<'a, R> {
        self.direction.resize(if ratio.is_some() { len } else { 0 }, R::default());
        let mut slots = self.slots.iter_mut();
        Operands {
            param,
            master: self.master.as_deref_mut(),
            grad,
            slots: std::array::from_fn(|_| slots.next().map(Vec::as_mut_slice).unwrap_or_default()),
            direction: &mut self.direction,
        }
    }
}

/// An update of one parameter. The gradient is contiguous and has the parameter's device and shape, and its dtype or f32.
pub(crate) struct Update<'a> {
    pub param: &'a Var,
    pub grad: Tensor,
    pub state: &'a mut State,
    pub kernel: &'static Kernel,
    pub scalars: Vec<f64>,
    pub pass: Pass<f64>,
    pub ratio: Option<TrustRatio>,
}

/// Updates all parameters. Their storages, and those of the gradients, must be distinct from each other.
pub(crate) fn step(updates: Vec<Update<'_>>) -> Result<()> {
    let (mut tensors, mut how): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for u in updates {
        tensors.push((u.param, u.grad));
        how.push((u.state, u.kernel, u.scalars, u.pass, u.ratio));
    }
    let mut how = how.into_iter();
    on_host(&tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::new(), Vec::new());
        for (pair, (state, kernel, scalars, pass, ratio)) in pairs.into_iter().zip(how.by_ref()) {
            match (pair, state) {
                (Pair::F32(param, grad), State::F32(buffers)) => {
                    let len = grad.len();
                    let job = Job::new(kernel.f32, &scalars, pass, ratio);
                    f32s.push((buffers.operands(param, grad, len, ratio), job));
                }
                (Pair::F64(param, grad), State::F64(buffers)) => {
                    let len = grad.len();
                    let job = Job::new(kernel.f64, &scalars, pass, ratio);
                    f64s.push((buffers.operands(param, grad, len, ratio), job));
                }
                _ => bail!("the state of a parameter is of another number type than the parameter"),
            }
        }
        cpu::step(f32s);
        cpu::step(f64s);
        Ok(())
    })
}

/// What to add to a tensor: `scale * addend`, or `scale * to^2 * addend` where `adaptive` is set.
pub(crate) struct Addition<'a> {
    pub to: &'a Var,
    pub addend: Tensor,
    pub scale: f64,
    pub adaptive: bool,
}

/// Adds in place. The same holds for the tensors as in [`step`].
pub(crate) fn add(all: Vec<Addition<'_>>) -> Result<()> {
    let how: Vec<_> = all.iter().map(|a| (a.scale, a.adaptive)).collect();
    let tensors: Vec<_> = all.into_iter().map(|a| (a.to, a.addend)).collect();
    let mut how = how.into_iter();
    on_host(&tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::new(), Vec::new());
        for (pair, (scale, adaptive)) in pairs.into_iter().zip(how.by_ref()) {
            match pair {
                Pair::F32(to, addend) => f32s.push((Operands::stateless(to, addend), scale, adaptive)),
                Pair::F64(to, addend) => f64s.push((Operands::stateless(to, addend), scale, adaptive)),
            }
        }
        cpu::add(f32s);
        cpu::add(f64s);
        Ok(())
    })
}

/// The sum of squares of a contiguous tensor, each value first multiplied by that of `weight` where there is one. It
/// does not depend on the number of threads.
pub(crate) fn squared_norm(values: &Tensor, weight: Option<&Tensor>) -> Result<f64> {
    let values = values.to_device(&Device::Cpu)?;
    let weight = weight.map(|w| w.to_device(&Device::Cpu)?.to_dtype(values.dtype())).transpose()?;
    let (values_guard, values_layout) = values.storage_and_layout();
    let weight_guard = weight.as_ref().map(|w| w.storage_and_layout());
    let Storage::Cpu(values) = &*values_guard else { bail!("a tensor on the CPU without a CPU storage") };
    let weight = match &weight_guard {
        None => None,
        Some((guard, layout)) => match &**guard {
            Storage::Cpu(storage) => Some((storage, *layout)),
            _ => bail!("a tensor on the CPU without a CPU storage"),
        },
    };
    macro_rules! sum {
        ($($Storage:ident, $Source:ident);*) => {
            match (values, weight) {
                $(
                    (CpuStorage::$Storage(v), None) => {
                        cpu::squared_norm::<$crate::backend::compute!($Storage)>(Source::$Source(slice(v, values_layout)?), None)
                    }
                    (CpuStorage::$Storage(v), Some((CpuStorage::$Storage(w), layout))) => {
                        cpu::squared_norm::<$crate::backend::compute!($Storage)>(
                            Source::$Source(slice(v, values_layout)?),
                            Some(Source::$Source(slice(w, layout)?)),
                        )
                    }
                )*
                _ => bail!("no norm of a tensor of type {:?}", values_guard.dtype()),
            }
        };
    }
    Ok(sum!(F32, Same; F64, Same; BF16, Bf16; F16, F16))
}

macro_rules! compute {
    (F64) => {
        f64
    };
    ($half:ident) => {
        f32
    };
}
use compute;

/// The slice of a contiguous tensor.
fn slice<'a, T>(all: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("a gradient is not contiguous"),
    }
}

fn slice_mut<'a, T>(all: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut all[start..end]),
        None => bail!("a parameter is not contiguous"),
    }
}

/// The elements of a parameter and of its gradient.
enum Pair<'a> {
    F32(Target<'a, f32>, Source<'a, f32>),
    F64(Target<'a, f64>, Source<'a, f64>),
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
            (F16(p), F32(g)) => Pair::F32(Target::F16(slice_mut(p, pl)?), Source::Same(slice(g, gl)?)),
            (p, g) => bail!("no update of a {:?} parameter with a {:?} gradient", p.dtype(), g.dtype()),
        })
    }
}

/// Calls `work` with the elements of all tensors, in order, `NEST` tensors at a time. Tensors of another device are
/// copied to the host and back.
fn on_host(tensors: &[(&Var, Tensor)], mut work: impl FnMut(Vec<Pair<'_>>) -> Result<()>) -> Result<()> {
    for part in tensors.chunks(NEST) {
        let mut copies = Vec::with_capacity(part.len());
        for (param, grad) in part {
            copies.push(match param.device() {
                Device::Cpu => (param.as_tensor().clone(), grad.clone()),
                _ => (param.to_device(&Device::Cpu)?, grad.to_device(&Device::Cpu)?),
            });
        }
        nest(&copies, Vec::with_capacity(part.len()), &mut work)?;
        for ((param, _), (copy, _)) in part.iter().zip(&copies) {
            if !param.device().is_cpu() {
                param.set(&copy.to_device(param.device())?)?;
            }
        }
    }
    Ok(())
}

type WorkFn<'w> = &'w mut dyn FnMut(Vec<Pair<'_>>) -> Result<()>;

/// Collects the elements of all tensors and calls `work`.
fn nest(tensors: &[(Tensor, Tensor)], collected: Vec<Pair<'_>>, work: WorkFn<'_>) -> Result<()> {
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
    rest: &'a [(Tensor, Tensor)],
    collected: Cell<Vec<Pair<'a>>>,
    work: Cell<Option<WorkFn<'w>>>,
}

impl InplaceOp2 for Level<'_, '_> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, pl: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<()> {
        // Moving the vector out of its cell lets the lifetime of its elements shrink to that of this level.
        let mut collected: Vec<Pair<'_>> = self.collected.take();
        collected.push(Pair::new(param, pl, grad, gl)?);
        match self.work.take() {
            Some(work) => nest(self.rest, collected, work),
            None => bail!("a level of the nest runs once"),
        }
    }
}

/// What tells whether two tensors share storage: they must not be locked at the same time.
pub(crate) fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref::<Storage>(&storage).addr()
}
