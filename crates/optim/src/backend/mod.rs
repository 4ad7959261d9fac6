//! How updates reach the storage of candle's tensors.
//!
//! candle lets an outside crate write a tensor only inside an in-place operation on that one tensor. To update all
//! tensors in one pass, the operations are nested: each hands on what the outer ones collected, and the innermost runs
//! with every tensor's storage at hand.

#[cfg(test)]
pub(crate) mod allocations;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
#[cfg(test)]
pub(crate) mod emulated;
pub(crate) mod kernel;
#[cfg(feature = "metal")]
mod metal;
#[cfg(any(test, feature = "metal"))]
mod metal_source;
mod share;

use self::kernel::Kernel;
use crate::formula::trust_ratio::TrustRatio;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "metal")]
use candle_core::MetalStorage;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Result, Shape, Storage, Tensor, Var, WithDType, bail,
};
pub(crate) use cpu::StepNumbers;
use cpu::{Compute, Job, Operands, Source, Target};
pub(crate) use device::{DeviceState, Tables};
use device::{Item, Launch, Place};
use std::cell::Cell;

/// Tensors written in one nest, and by one launch. A level takes up to 3 KB of stack in a debug build and threads have 2 MiB.
const TENSORS_PER_LAUNCH: usize = 256;

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
    /// Scratch of the trust ratio.
    pub direction: Vec<R>,
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
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1();
        let slots = slots.iter().map(values).collect::<Result<_>>()?;
        Ok(Self { slots, master: master.map(values).transpose()?, direction: Vec::new() })
    }

    fn tensors(&self, shape: &Shape) -> Result<(Vec<Tensor>, Option<Tensor>)> {
        let tensor = |values: &Vec<R>| Tensor::from_slice(values, shape, &Device::Cpu);
        Ok((self.slots.iter().map(tensor).collect::<Result<_>>()?, self.master.as_ref().map(tensor).transpose()?))
    }

    fn refit(&self, old: &[&str], new: &[&str], len: usize, add_master: bool) -> Self {
        let slot = |name: &&str| match old.iter().position(|o| o == name) {
            Some(at) => self.slots[at].clone(),
            None => vec![R::default(); len],
        };
        let master = self.master.clone().or_else(|| add_master.then(|| vec![R::default(); len]));
        Self { slots: new.iter().map(slot).collect(), master, direction: Vec::new() }
    }

    fn operands<'a>(
        &'a mut self,
        param: Target<'a, R>,
        grad: Source<'a, R>,
        len: usize,
        ratio: Option<TrustRatio>,
        noise: Option<u64>,
    ) -> Operands<'a, R> {
        self.direction.resize(if ratio.is_some() { len } else { 0 }, R::default());
        let mut slots = self.slots.iter_mut();
        Operands {
            param,
            master: self.master.as_deref_mut(),
            grad,
            slots: std::array::from_fn(|_| slots.next().map(Vec::as_mut_slice).unwrap_or_default()),
            direction: &mut self.direction,
            noise,
            start: 0,
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
    pub numbers: StepNumbers<f64>,
    pub ratio: Option<TrustRatio>,
    /// The key of the random numbers of stochastic rounding.
    pub noise: Option<u64>,
}

/// Updates all parameters, which are on one device. Their storages, and those of the gradients, must be distinct from each
/// other. A norm that is on the device scales the gradients. `before` is called when all that needs memory is done: where there
/// is none left, nothing has changed.
pub(crate) fn step(
    tables: &mut Tables,
    updates: Vec<Update<'_>>,
    norm: Option<&Norm>,
    before: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (mut tensors, mut how): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for u in updates {
        if let (State::Device(rows), Some(_)) = (&mut *u.state, u.ratio) {
            rows.keep_direction(u.param)?;
        }
        tensors.push((u.param, u.grad));
        how.push((u.state, u.kernel, u.scalars, u.numbers, u.ratio, u.noise));
    }
    if let Some((device, nests)) = nests_on_gpu(&tensors) {
        let mut how = how.iter();
        let items = |nest: &[(&Var, Tensor)]| {
            let item = |(var, grad): &(&Var, Tensor)| match how.next() {
                Some((State::Device(state), kernel, scalars, numbers, ratio, noise)) => {
                    let dtypes = [var.dtype(), grad.dtype()];
                    let (len, param, grad) = (var.elem_count(), place(var)?, place(grad)?);
                    let (kernel, scalars, numbers) = (*kernel, scalars.clone(), *numbers);
                    let (ratio, noise) = (*ratio, *noise);
                    Ok(Item { param, grad, dtypes, len, state, kernel, scalars, numbers, ratio, noise })
                }
                _ => bail!("the state of a parameter is not where the parameter is"),
            };
            nest.iter().map(item).collect()
        };
        let items = nests.map(items).collect::<Result<Vec<_>>>()?;
        let plans = device::plan_step(tables, device, items, norm)?;
        before()?;
        return launch_nests(&tensors, device, &plans);
    }
    before()?;
    let mut how = how.into_iter();
    with_elements(&tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::new(), Vec::new());
        for (pair, (state, kernel, scalars, numbers, ratio, noise)) in pairs.into_iter().zip(how.by_ref()) {
            match (pair, state) {
                (Pair::F32(param, grad), State::F32(buffers)) => {
                    let len = grad.len();
                    let job = Job::new(kernel.f32, &scalars, numbers, ratio);
                    f32s.push((buffers.operands(param, grad, len, ratio, noise), job));
                }
                (Pair::F64(param, grad), State::F64(buffers)) => {
                    let len = grad.len();
                    let job = Job::new(kernel.f64, &scalars, numbers, ratio);
                    f64s.push((buffers.operands(param, grad, len, ratio, noise), job));
                }
                _ => bail!("the state of a parameter is of another number type than the parameter"),
            }
        }
        cpu::step(f32s);
        cpu::step(f64s);
        Ok(())
    })
}

/// What to add to a tensor: `scale * addend`, or `scale * to^2 * addend` where `adaptive` is set. `scale` is first divided by
/// a norm plus a number, where that is given.
pub(crate) struct Addition<'a> {
    pub to: &'a Var,
    pub addend: Tensor,
    pub scale: f64,
    pub by_norm: Option<(Norm, f64)>,
    pub adaptive: bool,
}

/// Adds in place. The same holds for the tensors, and for memory, as in [`step`].
pub(crate) fn add(tables: &mut Tables, all: Vec<Addition<'_>>) -> Result<()> {
    let tensors: Vec<_> = all.iter().map(|a| (a.to, a.addend.clone())).collect();
    if let Some((device, _)) = nests_on_gpu(&tensors) {
        let plans = device::plan_add(tables, device, all.chunks(TENSORS_PER_LAUNCH))?;
        return launch_nests(&tensors, device, &plans);
    }
    let mut how = all.iter();
    with_elements(&tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::new(), Vec::new());
        for (pair, addition) in pairs.into_iter().zip(how.by_ref()) {
            let scale = match addition.by_norm {
                Some((Norm::Host(norm), epsilon)) => addition.scale / (norm + epsilon),
                _ => addition.scale,
            };
            match pair {
                Pair::F32(to, addend) => f32s.push((Operands::stateless(to, addend), scale, addition.adaptive)),
                Pair::F64(to, addend) => f64s.push((Operands::stateless(to, addend), scale, addition.adaptive)),
                Pair::Device => bail!("some tensors are on a GPU, others are not"),
            }
        }
        cpu::add(f32s);
        cpu::add(f64s);
        Ok(())
    })
}

/// The device and the nests of tensors that are on a GPU.
fn nests_on_gpu<'a, 't>(
    tensors: &'a [(&'t Var, Tensor)],
) -> Option<(&'t Device, impl Iterator<Item = &'a [(&'t Var, Tensor)]>)> {
    let (var, _) = tensors.first()?;
    is_gpu(var.device()).then(|| (var.device(), tensors.chunks(TENSORS_PER_LAUNCH)))
}

/// Starts the launches of each nest while its tensors are locked.
fn launch_nests(tensors: &[(&Var, Tensor)], device: &Device, plans: &[Vec<device::Planned>]) -> Result<()> {
    let mut plans = plans.iter();
    with_elements(tensors, |_| plans.next().into_iter().flatten().try_for_each(|planned| planned.launch(device)))
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

/// `scale` times the square root of the sum of squares over all tensors, with a weight each value first multiplied by that of
/// the weight; in a fixed order of summation. On a GPU it stays there, with the factor that makes it at most `max`, until the
/// next one of the same `place`.
pub(crate) fn global_norm(
    tables: &mut Tables,
    tensors: &[(&Tensor, Option<&Tensor>)],
    scale: f64,
    max: f64,
    place: usize,
) -> Result<Norm> {
    match tensors.first() {
        Some((tensor, _)) if is_gpu(tensor.device()) => {
            let device = tensor.device().clone();
            Ok(Norm::Device(device::global_norm(tables, &device, tensors, scale, max, place)?))
        }
        _ => {
            let squares = tensors.iter().map(|(values, weight)| squared_norm(values, *weight));
            Ok(Norm::Host(scale * squares.sum::<Result<f64>>()?.sqrt()))
        }
    }
}

thread_local!(static READ_BACK: Cell<u64> = const { Cell::new(0) });

/// Copies a tensor to the host.
pub(crate) fn read_back(tensor: &Tensor) -> Result<Tensor> {
    READ_BACK.set(READ_BACK.get() + 1);
    tensor.to_device(&Device::Cpu)
}

/// How often this thread has copied something to the host. A step must not change it.
pub(crate) fn read_backs() -> u64 {
    READ_BACK.get()
}

/// `chosen` where `now` has the bits of `then`, `now` elsewhere. The three have one shape and type.
pub(crate) fn where_same(now: &Tensor, then: &Tensor, chosen: &Tensor) -> Result<Tensor> {
    if now.device().is_cpu() && same_bits(now, then)? {
        return Ok(chosen.clone());
    }
    // NaN is the only value that is not equal to itself.
    let both_nan = (now.ne(now)? * then.ne(then)?)?;
    allocate(|| (now.eq(then)? + both_nan)?.where_cond(chosen, now))
}

/// Whether two tensors on the CPU are the same, bit by bit.
fn same_bits(a: &Tensor, b: &Tensor) -> Result<bool> {
    let ((a, a_layout), (b, b_layout)) = (a.storage_and_layout(), b.storage_and_layout());
    macro_rules! same {
        ($($Kind:ident),*) => {
            match (&*a, &*b) {
                $((Storage::Cpu(CpuStorage::$Kind(a)), Storage::Cpu(CpuStorage::$Kind(b))) => {
                    let (a, b) = (slice(a, a_layout)?, slice(b, b_layout)?);
                    // A branch for a block, not for each number: it is compared at the memory's speed.
                    let mut blocks = a.chunks(1024).zip(b.chunks(1024));
                    blocks.all(|(a, b)| a.iter().zip(b).fold(true, |same, (a, b)| same & (a.to_bits() == b.to_bits())))
                })*
                _ => bail!("two tensors of different types"),
            }
        };
    }
    Ok(same!(F32, F64, BF16, F16))
}

/// Whether its tensors are updated by the kernels for GPUs.
pub(crate) fn is_gpu(device: &Device) -> bool {
    #[cfg(test)]
    if emulated::is_on() {
        return true;
    }
    !device.is_cpu()
}

/// The kernels' type `wide`.
fn wide_dtype(device: &Device) -> DType {
    #[cfg(test)]
    if emulated::is_metal() {
        return DType::F32;
    }
    if device.is_metal() { DType::F32 } else { DType::F64 }
}

/// Loads a kernel, so that it can be started.
#[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(unused_variables, reason = "no GPU in this build"))]
fn load(device: &Device, rule: Option<&'static Kernel>, function: &str) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::load(device, rule, function),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal::load(device, rule, function).map(drop),
        _ => Ok(()),
    }
}

/// Starts a kernel.
fn launch(device: &Device, launch: &Launch<'_>) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::launch(device, launch),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal::launch(device, launch),
        #[cfg(test)]
        Device::Cpu => emulated::launch(launch),
        _ => bail!("`{}` has no kernel for {:?}", launch.function, device.location()),
    }
}

/// Makes a tensor, for which there may be no memory. Tests let it fail.
fn allocate(make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    #[cfg(test)]
    allocations::count()?;
    make()
}

/// A contiguous copy, with a storage of its own.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    allocate(|| tensor.force_contiguous())
}

/// A copy in another type; also of an empty tensor, for which CUDA starts no kernel.
pub(crate) fn to_dtype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    allocate(|| match tensor.elem_count() {
        0 => Tensor::zeros(tensor.shape(), dtype, tensor.device()),
        _ => tensor.to_dtype(dtype),
    })
}

/// Where a tensor starts on its device.
fn place(tensor: &Tensor) -> Result<Place> {
    let (storage, _layout) = tensor.storage_and_layout();
    match &*storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => cuda::place(storage, _layout),
        #[cfg(feature = "metal")]
        Storage::Metal(storage) => metal::place(storage, _layout),
        #[cfg(test)]
        Storage::Cpu(storage) => emulated::place(storage, _layout),
        _ => bail!("a tensor on {:?} has no address", tensor.device().location()),
    }
}

/// Replaces a tensor of bytes: in its memory where the device orders that after the launches that read it.
fn refill(tensor: &mut Tensor, bytes: &[u8]) -> Result<()> {
    if tensor.device().is_cuda() && tensor.elem_count() == bytes.len() {
        return tensor.inplace_op1(&Refill(bytes));
    }
    *tensor = allocate(|| Tensor::from_slice(bytes, bytes.len(), tensor.device()))?;
    Ok(())
}

#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "CUDA alone reads it"))]
struct Refill<'a>(&'a [u8]);

impl InplaceOp1 for Refill<'_> {
    fn name(&self) -> &'static str {
        "optimizer-tables"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("tables are of GPUs")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        cuda::refill(storage, self.0)
    }
}

/// The sum of squares of a contiguous tensor on the CPU, each value first multiplied by that of `weight` where there is one.
/// It does not depend on the number of threads.
fn squared_norm(values: &Tensor, weight: Option<&Tensor>) -> Result<f64> {
    let weight = weight.map(|w| w.to_dtype(values.dtype())).transpose()?;
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

/// The elements of a parameter and of its gradient, or of two tensors one of which is added to the other.
enum Pair<'a> {
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
fn with_elements(tensors: &[(&Var, Tensor)], mut work: impl FnMut(Vec<Pair<'_>>) -> Result<()>) -> Result<()> {
    tensors.chunks(TENSORS_PER_LAUNCH).try_for_each(|part| nest(part, Vec::with_capacity(part.len()), &mut work))
}

type WorkFn<'w> = &'w mut dyn FnMut(Vec<Pair<'_>>) -> Result<()>;

/// Collects the elements of all tensors and calls `work`.
fn nest(tensors: &[(&Var, Tensor)], collected: Vec<Pair<'_>>, work: WorkFn<'_>) -> Result<()> {
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
    rest: &'a [(&'a Var, Tensor)],
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

/// What tells whether two tensors share storage: they must not be locked at the same time.
pub(crate) fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref::<Storage>(&storage).addr()
}
