//! How updates reach all parameters: on the CPU by loops, on a GPU by launches.

use super::cpu;
use super::cpu::loops::Loops;
use super::cpu::numbers::{Compute, StepNumbers};
use super::cpu::operands::{Operands, Source, Target};
use super::cpu::step::Job;
use super::device::dispatch::place_of;
use super::device::plan::{self, Item, Planned};
use super::device::tables::Tables;
use super::kept::Kept;
use super::kernel::Kernel;
use super::nest::{Pair, TENSORS_PER_LAUNCH, with_elements};
use super::pages::zeros;
use super::state::{Buffers, State};
use super::tensors::{allocate, is_gpu, slice};
use super::update::{Addition, Norm, Update};
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope};
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, WithDType, bail};
use std::collections::BTreeMap;

/// How a parameter is updated.
struct How<'a> {
    state: &'a mut State,
    kernel: &'static Kernel,
    scalars: Vec<f64>,
    numbers: StepNumbers<f64>,
    by_norm: bool,
    noise: Option<u64>,
    measures: bool,
}

impl How<'_> {
    /// Puts the factors in the place of the last scalars.
    fn set_factors(&mut self, factors: &[f64; MAX_FACTORS]) {
        let count = self.kernel.sums.factors;
        let first = self.scalars.len() - count;
        self.scalars[first..].copy_from_slice(&factors[..count]);
    }

    fn factors(&self) -> &[f64] {
        &self.scalars[self.scalars.len() - self.kernel.sums.factors..]
    }
}

/// Updates all parameters, which are on one device. Their storages, and those of the gradients, must be distinct from each
/// other. A norm that is on the device scales the gradients. `before` is called when all that needs memory is done: where there
/// is none left, nothing has changed.
pub(crate) fn step(
    tables: &mut Tables,
    kept: &mut Kept,
    updates: Vec<Update<'_>>,
    norm: Option<&Norm>,
    before: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (mut tensors, mut how) = (Vec::with_capacity(updates.len()), Vec::with_capacity(updates.len()));
    for u in updates {
        let measures = u.measures();
        let Update { param, grad, state, kernel, scalars, numbers, by_norm, noise } = u;
        tensors.push((param.as_tensor(), grad));
        how.push(How { state, kernel, scalars, numbers, by_norm, noise, measures });
    }
    if let Some((device, nests)) = nests_on_gpu(&tensors) {
        let mut how = how.iter();
        let items = |nest: &[(&Tensor, Tensor)]| {
            let item = |(var, grad): &(&Tensor, Tensor)| match how.next() {
                Some(How { state: State::Device(state), kernel, scalars, numbers, by_norm, noise, .. }) => {
                    let dtypes = [var.dtype(), grad.dtype()];
                    let (len, param, grad) = (var.elem_count(), place_of(var)?, place_of(grad)?);
                    let (kernel, scalars, numbers) = (*kernel, scalars.clone(), *numbers);
                    let (by_norm, noise) = (*by_norm, *noise);
                    Ok(Item { param, grad, dtypes, len, state, kernel, scalars, numbers, by_norm, noise })
                }
                _ => bail!("the state of a parameter is not where the parameter is"),
            };
            nest.iter().map(item).collect()
        };
        let items = nests.map(items).collect::<Result<Vec<_>>>()?;
        let plan = plan::plan_step(tables, kept, device, items, norm)?;
        before()?;
        if plan.nests.iter().flatten().any(Planned::measures) {
            launch_nests(&tensors, device, &plan.nests, 0)?;
            plan.between.iter().try_for_each(|factors| factors.launch(device))?;
        }
        return launch_nests(&tensors, device, &plan.nests, 1);
    }
    before()?;
    if how.iter().any(|how| how.measures) {
        measure(kept, &tensors, &mut how)?;
    }
    on_cpu(&tensors, how.iter_mut(), |f32s, f64s| {
        cpu::step::step(f32s);
        cpu::step::step(f64s);
    })
}

type Work<'a, R> = Vec<(Operands<'a, R>, Job<R>)>;

/// Calls `run` with what is to be done to tensors on the CPU, one nest at a time.
fn on_cpu<'h, 'a: 'h>(
    tensors: &[(&Tensor, Tensor)],
    mut how: impl Iterator<Item = &'h mut How<'a>>,
    mut run: impl FnMut(Work<'_, f32>, Work<'_, f64>),
) -> Result<()> {
    with_elements(tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::with_capacity(pairs.len()), Vec::new());
        for (pair, how) in pairs.into_iter().zip(how.by_ref()) {
            let (kernel, scalars, numbers, noise) = (how.kernel, &how.scalars, how.numbers, how.noise);
            match (pair, &mut *how.state) {
                (Pair::F32(param, grad), State::F32(buffers)) => {
                    f32s.push((buffers.operands(param, grad, noise), Job::new(kernel.f32, scalars, numbers)));
                }
                (Pair::F64(param, grad), State::F64(buffers)) => {
                    f64s.push((buffers.operands(param, grad, noise), Job::new(kernel.f64, scalars, numbers)));
                }
                _ => bail!("the state of a parameter is of another number type than the parameter"),
            }
        }
        run(f32s, f64s);
        Ok(())
    })
}

/// What a formula without sums is to make of a gradient on the CPU.
pub(crate) struct Made<'a> {
    pub grad: &'a Tensor,
    pub state: &'a mut State,
    pub kernel: &'static Kernel,
    pub scalars: Vec<f64>,
    pub numbers: StepNumbers<f64>,
}

/// What a formula gives for gradients of `rows` times `columns` numbers, on the CPU and in the type of their state, as one stack: it
/// is written there at once, and memory that nobody had before is slow.
pub(crate) fn stack_on_cpu(made: Vec<Made<'_>>, rows: usize, columns: usize) -> Result<Tensor> {
    match made.first().map(|made| &*made.state) {
        Some(State::F64(_)) => stack_of(made, rows, columns, |kernel| kernel.f64, State::f64_buffers),
        _ => stack_of(made, rows, columns, |kernel| kernel.f32, State::f32_buffers),
    }
}

fn stack_of<R: Compute + WithDType>(
    made: Vec<Made<'_>>,
    rows: usize,
    columns: usize,
    loops: impl Fn(&Kernel) -> Loops<R>,
    buffers: impl Fn(&mut State) -> Option<&mut Buffers<R>>,
) -> Result<Tensor> {
    let dims = (made.len(), rows, columns);
    let mut all = zeros::<R>(made.len() * rows * columns);
    let guards: Vec<_> = made.iter().map(|made| made.grad.storage_and_layout()).collect();
    let parts = all.chunks_mut(rows * columns).zip(made).zip(&guards);
    let work = parts.map(|((out, made), (grad, layout))| {
        let Storage::Cpu(grad) = &**grad else { bail!("a gradient is not on the CPU") };
        let grad = slice(R::cpu_storage_as_slice(grad)?, layout)?;
        let Some(buffers) = buffers(made.state) else { bail!("a state of another number type than the gradient") };
        let job = Job::new(loops(made.kernel), &made.scalars, made.numbers);
        Ok((buffers.operands(Target::Same(out), Source::Same(grad), None), job))
    });
    cpu::step::step(work.collect::<Result<_>>()?);
    drop(guards);
    allocate(|| Tensor::from_vec(all, dims, &Device::Cpu))
}

/// The sums over all tensors of a formula.
struct OverAll {
    kernel: &'static Kernel,
    /// Those of the first tensor.
    scalars: Vec<f64>,
    sums: [f64; MAX_SUMS],
    len: usize,
}

/// The first pass on the CPU: takes the sums, and sets what the second pass needs of them.
fn measure(kept: &mut Kept, tensors: &[(&Tensor, Tensor)], how: &mut [How<'_>]) -> Result<()> {
    for how in how.iter_mut().filter(|how| how.kernel.sums.scope == Scope::All) {
        let factors = kept.on_host(how.kernel, how.factors());
        how.set_factors(&factors);
    }
    // Those in f32 first, in each nest.
    let mut sums = Vec::new();
    for chunk in 0..tensors.len().div_ceil(TENSORS_PER_LAUNCH) {
        let at = chunk * TENSORS_PER_LAUNCH..tensors.len().min((chunk + 1) * TENSORS_PER_LAUNCH);
        let measured: Vec<_> =
            tensors[at.clone()].iter().zip(&how[at.clone()]).filter(|(_, how)| how.measures).collect();
        let part: Vec<_> = measured.iter().map(|((var, grad), _)| (*var, grad.clone())).collect();
        let is_f32: Vec<bool> = part.iter().map(|(var, _)| var.dtype() != DType::F64).collect();
        drop(measured);
        on_cpu(&part, how[at].iter_mut().filter(|how| how.measures), |f32s, f64s| {
            let (f32s, f64s) = (cpu::step::measure(f32s), cpu::step::measure(f64s));
            let (mut f32s, mut f64s) = (f32s.into_iter(), f64s.into_iter());
            sums.extend(is_f32.iter().filter_map(|is_f32| if *is_f32 { f32s.next() } else { f64s.next() }));
        })?;
    }
    let measured =
        || tensors.iter().zip(0..).filter(|(_, at)| how[*at].measures).map(|((var, _), at)| (at, var.elem_count()));
    let measured: Vec<(usize, usize)> = measured().collect();
    let mut over_all: BTreeMap<&'static str, OverAll> = BTreeMap::new();
    for ((at, len), sums) in measured.into_iter().zip(sums) {
        let how = &mut how[at];
        let kernel = how.kernel;
        if kernel.sums.is_none() {
            how.numbers.mask_scale = 1.0 / (sums[0] / len as f64).max(1e-3);
        } else if kernel.sums.scope == Scope::Tensor {
            let factors = (kernel.factors_f64)(&how.scalars, sums, len as f64);
            how.set_factors(&factors);
        } else {
            let first = || OverAll { kernel, scalars: how.scalars.clone(), sums: [0.0; MAX_SUMS], len: 0 };
            let all = over_all.entry(kernel.name).or_insert_with(first);
            all.sums.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            all.len += len;
        }
    }
    for (name, OverAll { kernel, scalars, sums, len }) in over_all {
        let factors = (kernel.factors_f64)(&scalars, sums, len as f64);
        kept.set_on_host(kernel, factors);
        how.iter_mut().filter(|how| how.kernel.name == name).for_each(|how| how.set_factors(&factors));
    }
    Ok(())
}

/// Additions that need no memory any more.
pub(crate) struct PlannedAdditions {
    all: Vec<Addition>,
    plans: Vec<Vec<plan::Planned>>,
}

/// Plans additions in place. The same holds for the tensors as in [`step`].
pub(crate) fn plan_add(tables: &mut Tables, all: Vec<Addition>) -> Result<PlannedAdditions> {
    let plans = match all.first() {
        Some(Addition { to, .. }) if is_gpu(to.device()) => {
            plan::plan_add(tables, to.device(), all.chunks(TENSORS_PER_LAUNCH))?
        }
        _ => Vec::new(),
    };
    Ok(PlannedAdditions { all, plans })
}

/// Adds in place. The same holds for the tensors, and for memory, as in [`step`].
pub(crate) fn add(tables: &mut Tables, all: Vec<Addition>) -> Result<()> {
    add_planned(&plan_add(tables, all)?)
}

/// Adds in place what was planned.
pub(crate) fn add_planned(PlannedAdditions { all, plans }: &PlannedAdditions) -> Result<()> {
    let tensors: Vec<_> = all.iter().map(|a| (&a.to, a.addend.clone())).collect();
    if let Some((device, _)) = nests_on_gpu(&tensors) {
        return launch_nests(&tensors, device, plans, 1);
    }
    let mut how = all.iter();
    with_elements(&tensors, |pairs| {
        let (mut f32s, mut f64s) = (Vec::new(), Vec::new());
        for (pair, addition) in pairs.into_iter().zip(how.by_ref()) {
            let scale = match &addition.by_norm {
                Some((Norm::Host(norm), epsilon)) => addition.scale / (norm + epsilon),
                _ => addition.scale,
            };
            match pair {
                Pair::F32(to, addend) => f32s.push((Operands::stateless(to, addend), scale, addition.term)),
                Pair::F64(to, addend) => f64s.push((Operands::stateless(to, addend), scale, addition.term)),
                Pair::Device => bail!("some tensors are on a GPU, others are not"),
            }
        }
        cpu::step::add(f32s);
        cpu::step::add(f64s);
        Ok(())
    })
}

/// The device and the nests of tensors that are on a GPU.
fn nests_on_gpu<'a, 't>(
    tensors: &'a [(&'t Tensor, Tensor)],
) -> Option<(&'t Device, impl Iterator<Item = &'a [(&'t Tensor, Tensor)]>)> {
    let (var, _) = tensors.first()?;
    is_gpu(var.device()).then(|| (var.device(), tensors.chunks(TENSORS_PER_LAUNCH)))
}

/// Starts the launches of a pass of each nest while its tensors are locked.
fn launch_nests(tensors: &[(&Tensor, Tensor)], device: &Device, plans: &[Vec<Planned>], pass: usize) -> Result<()> {
    let mut plans = plans.iter();
    with_elements(tensors, |_| plans.next().into_iter().flatten().try_for_each(|planned| planned.launch(device, pass)))
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
            Ok(Norm::Device(plan::global_norm(tables, &device, tensors, scale, max, place)?))
        }
        _ => {
            let squares = tensors.iter().map(|(values, weight)| squared_norm(values, *weight));
            Ok(Norm::Host(scale * squares.sum::<Result<f64>>()?.sqrt()))
        }
    }
}

/// The number type of the sums of squares.
macro_rules! compute {
    (F64) => {
        f64
    };
    ($half:ident) => {
        f32
    };
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
                        cpu::step::squared_norm::<compute!($Storage)>(Source::$Source(slice(v, values_layout)?), None)
                    }
                    (CpuStorage::$Storage(v), Some((CpuStorage::$Storage(w), layout))) => {
                        cpu::step::squared_norm::<compute!($Storage)>(
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
