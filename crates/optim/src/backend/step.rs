//! How updates reach all parameters: on the CPU by loops, on a GPU by launches.

use super::cpu;
use super::cpu::operands::{Operands, Source};
use super::cpu::step::Job;
use super::device::dispatch::place_of;
use super::device::plan::{self, Item};
use super::device::tables::Tables;
use super::nest::{Pair, TENSORS_PER_LAUNCH, with_elements};
use super::state::State;
use super::tensors::{is_gpu, slice};
use super::update::{Addition, Norm, Update};
use candle_core::{CpuStorage, Device, Result, Storage, Tensor, Var, bail};

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
                    let (len, param, grad) = (var.elem_count(), place_of(var)?, place_of(grad)?);
                    let (kernel, scalars, numbers) = (*kernel, scalars.clone(), *numbers);
                    let (ratio, noise) = (*ratio, *noise);
                    Ok(Item { param, grad, dtypes, len, state, kernel, scalars, numbers, ratio, noise })
                }
                _ => bail!("the state of a parameter is not where the parameter is"),
            };
            nest.iter().map(item).collect()
        };
        let items = nests.map(items).collect::<Result<Vec<_>>>()?;
        let plans = plan::plan_step(tables, device, items, norm)?;
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
        cpu::step::step(f32s);
        cpu::step::step(f64s);
        Ok(())
    })
}

/// Adds in place. The same holds for the tensors, and for memory, as in [`step`].
pub(crate) fn add(tables: &mut Tables, all: Vec<Addition<'_>>) -> Result<()> {
    let tensors: Vec<_> = all.iter().map(|a| (a.to, a.addend.clone())).collect();
    if let Some((device, _)) = nests_on_gpu(&tensors) {
        let plans = plan::plan_add(tables, device, all.chunks(TENSORS_PER_LAUNCH))?;
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
        cpu::step::add(f32s);
        cpu::step::add(f64s);
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
fn launch_nests(tensors: &[(&Var, Tensor)], device: &Device, plans: &[Vec<plan::Planned>]) -> Result<()> {
    let mut plans = plans.iter();
    with_elements(tensors, |_| plans.next().into_iter().flatten().try_for_each(|planned| planned.launch(device)))
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
