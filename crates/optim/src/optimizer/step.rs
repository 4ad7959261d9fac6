//! The step: accumulation, and the update itself. Which call may follow which is `phase.rs`; SAM's two steps are `sam.rs`.
//!
//! A step that fails leaves everything as it was. So all that can fail is done first, on copies or with what undoes it at hand:
//! checks, schedules, norms, memory for state and tables; then parameters are restored, written and counted.

use super::clip::Clip;
use super::displacement::Displacement;
use super::fused::{Active, FusedOptimizer};
use super::matrix::{Common, TINY_EVERY, Transformed};
use super::parameter::{MatrixState, Parameter};
use super::phase::{Call, Gradients, Phase, check};
use crate::backend::cpu::numbers::StepNumbers;
use crate::backend::kernel::Kernel;
use crate::backend::state::State;
use crate::backend::step;
use crate::backend::tensors::read_backs;
use crate::backend::update::{Norm, Update};
use crate::error::{Error, Result};
use crate::rule::contract::{QuasiNewton, Rule};
use crate::rule::matrix::STEP;
use crate::rule::progress::Progress;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};

impl<R: Rule + Clone> FusedOptimizer<R> {
    pub(super) fn phase(&self) -> Phase {
        if self.evaluated.is_some() {
            return Phase::Evaluating;
        }
        match (self.perturbation.is_some(), self.accumulated.count > 0) {
            (false, false) => Phase::Idle,
            (false, true) => Phase::Accumulating,
            (true, false) => Phase::Perturbed,
            (true, true) => Phase::PerturbedAccumulating,
        }
    }

    pub(super) fn check(&self, call: Call) -> Result<()> {
        let gradients = if self.quasi_newton().is_some() {
            Gradients::Many
        } else if self.groups.iter().any(|group| group.rule.sharpness().is_some()) {
            Gradients::Two
        } else {
            Gradients::One
        };
        check(self.phase(), call, gradients)
    }

    /// Where a group's rule is L-BFGS.
    pub(super) fn quasi_newton(&self) -> Option<QuasiNewton> {
        self.groups.iter().find_map(|group| group.rule.quasi_newton())
    }

    /// The gradients of all parameters in order, checked and prepared; `None` where there is none or it is frozen.
    pub(super) fn stored_gradients(&self, grads: &GradStore) -> Result<Vec<Option<Tensor>>> {
        let addresses: HashSet<usize> = self.all_params().map(|p| p.address).collect();
        let of = |p: &Parameter| if p.frozen { None } else { grads.get(&p.var).cloned() };
        self.all_params().map(|p| of(p).map(|g| p.prepared(g, &addresses)).transpose()).collect()
    }

    /// The sums of the accumulated gradients.
    pub(super) fn accumulated_gradients(&self) -> Result<Vec<Option<Tensor>>> {
        let sums = self.accumulated.sums();
        self.all_params().zip(sums).map(|(p, sum)| sum.map(|s| p.prepared(s, &HashSet::new())).transpose()).collect()
    }

    /// Adds the gradients of a micro-batch to those before it, in f32 (f64 for f64 parameters).
    /// [`step_accumulated`](Self::step_accumulated) then steps with their mean over all micro-batches; where a parameter has no
    /// gradient in a micro-batch, that counts as 0. A parameter that is frozen meanwhile loses what it has.
    ///
    /// With SAM there are two rounds: accumulate, [`first_step_accumulated`](Self::first_step_accumulated), accumulate the
    /// same micro-batches again, `step_accumulated`.
    ///
    /// # Errors
    /// No parameter has a gradient; a gradient of another shape or device than its parameter; between [`eval`](Self::eval) and
    /// [`train`](Self::train). What was accumulated is then as before.
    pub fn accumulate(&mut self, grads: &GradStore) -> Result<()> {
        self.check(Call::Accumulate)?;
        let grads = self.stored_gradients(grads)?;
        self.check_gradients(&grads)?;
        self.accumulated.add(grads)
    }

    /// Drops the accumulated gradients; returns of how many micro-batches they were. After SAM's first step the parameters stay
    /// where it moved them.
    pub fn discard_accumulated(&mut self) -> u64 {
        let count = self.accumulated.count;
        self.accumulated.clear();
        count
    }

    /// A step with the mean of the accumulated gradients: where every loss is the mean over a micro-batch of the same
    /// size, the same as one step with all of them as one batch. With SAM it is the second of the two steps.
    ///
    /// # Errors
    /// Nothing was accumulated; SAM without [`first_step_accumulated`](Self::first_step_accumulated); as
    /// [`Optimizer::step`](candle_nn::Optimizer::step). Everything is then as before, what was accumulated too.
    pub fn step_accumulated(&mut self) -> Result<()> {
        self.check(Call::StepAccumulated)?;
        let (grads, scale) = (self.accumulated_gradients()?, 1.0 / self.accumulated.count as f64);
        self.update(grads, scale)?;
        self.accumulated.clear();
        Ok(())
    }

    /// Some parameter has a gradient; or all are frozen, and nothing moves because the user said so.
    pub(super) fn check_gradients(&self, grads: &[Option<Tensor>]) -> Result<()> {
        let may_move = grads.is_empty() || self.all_params().any(|p| !p.frozen);
        if may_move && grads.iter().all(Option::is_none) { Err(self.no_gradient()) } else { Ok(()) }
    }

    pub(super) fn no_gradient(&self) -> Error {
        match self.all_params().filter(|p| !p.frozen).count() {
            _ if self.all_params().next().is_none() => Error::NoParameters,
            count => Error::NoGradient { count },
        }
    }

    /// The groups' rules with what is scheduled for the step to come, checked.
    pub(super) fn scheduled_rules(&self) -> Result<Vec<R>> {
        let scheduled = |group: &Active<R>| {
            let mut rule = group.rule.clone();
            for (key, schedule) in &group.schedules {
                rule.set_field(key, schedule.at(self.step).into());
            }
            rule.validate()?;
            Ok(rule)
        };
        self.groups.iter().map(scheduled).collect()
    }

    /// The update with `scale` times these gradients, in the order of all parameters. It ends a perturbation.
    pub(super) fn update(&mut self, grads: Vec<Option<Tensor>>, scale: f64) -> Result<()> {
        let rules = self.scheduled_rules()?;
        self.check_gradients(&grads)?;
        let already_read = read_backs();
        let max = if let Some(Clip::GlobalNorm(max)) = self.clip { Some(max) } else { None };
        // Not where the latest step's norm is: it is to be read until this step is made. Nor where SAM's is, 2.
        let place = (self.step % 2) as usize;
        let norm = if max.is_some() || self.measure_grad_norm {
            let all: Vec<_> = grads.iter().flatten().map(|grad| (grad, None)).collect();
            Some(step::global_norm(&mut self.tables, &all, scale, max.unwrap_or(f64::INFINITY), place)?)
        } else {
            None
        };
        let grad_scale = match (max, &norm) {
            // A norm of NaN makes every gradient NaN, as in PyTorch, rather than hide the failure.
            (Some(max), Some(Norm::Host(norm))) if norm.is_nan() => scale * (max / norm),
            (Some(max), Some(Norm::Host(norm))) => scale * (max / (norm + 1e-6)).min(1.0),
            _ => scale,
        };
        let restored = self.perturbation.as_ref().map(Displacement::restored).transpose()?;

        let mut refitted = Vec::new();
        let has_grad: Vec<bool> = grads.iter().map(Option::is_some).collect();
        let factor = norm.as_ref().filter(|_| max.is_some());
        let (mut numbers_after, mut matrices) = (Vec::new(), BTreeMap::new());
        let done = self.fit(&rules, &has_grad, false, &mut refitted).and_then(|()| {
            let averages = self.plan_averages(&has_grad)?;
            let clip_value = if let Some(Clip::Value(max)) = self.clip { max } else { f64::INFINITY };
            // What is on the device is multiplied in there.
            let grad_scale = if matches!(factor, Some(Norm::Device(_))) { 1.0 } else { grad_scale };
            let numbers = Common { grad_scale, clip_value, stochastic_rounding: self.stochastic_rounding };
            let mut grads = grads;
            matrices = self.transform_matrices(&rules, &mut grads, &numbers, factor)?;
            let (updates, new_numbers) = updates(&mut self.groups, &rules, grads, &mut matrices, &numbers, &refitted);
            numbers_after = new_numbers;
            let restore = || restored.map_or(Ok(()), |restored| restored.write());
            step::step(&mut self.tables, &mut self.kept, updates, factor, restore)?;
            Ok(averages)
        });
        let averages = match done {
            Ok(averages) => averages,
            Err(error) => {
                self.undo_fit(refitted);
                return Err(error);
            }
        };
        debug_assert_eq!(already_read, read_backs(), "a step waits for nothing on the device");
        warn_of_dropped_slots(&refitted);
        let params = self.groups.iter_mut().flat_map(|group| &mut group.params);
        let mut numbers_after = numbers_after.into_iter();
        for (index, (parameter, has_grad)) in params.zip(has_grad).enumerate() {
            if has_grad {
                parameter.updates += 1;
                parameter.numbers = numbers_after.next().unwrap_or_default();
                let matrix = matrices.remove(&index).map(|transformed| transformed.state);
                match std::mem::replace(&mut parameter.matrix, matrix) {
                    Some(MatrixState { slots: State::Device(_), .. }) | None => {}
                    Some(old) => drop(self.spare_slots.insert(index, old.slots)),
                }
            }
        }
        self.groups.iter_mut().zip(rules).for_each(|(group, rule)| group.rule = rule);
        self.perturbation = None;
        self.grad_norm = norm;
        self.step += 1;
        self.run_averages(averages)
    }

    /// Takes back what [`fit`](Self::fit) did.
    pub(super) fn undo_fit(&mut self, refitted: Vec<Refitted>) {
        for Refitted { group, index, kernel, state, .. } in refitted {
            let parameter = &mut self.groups[group].params[index];
            (parameter.kernel, parameter.state) = (kernel, state);
        }
    }

    /// Makes the state of every parameter that has a gradient fit its rule's kernel, as a copy where it does already and
    /// `copies` asks for that. `refitted` gets what it was.
    pub(super) fn fit(
        &mut self,
        rules: &[R],
        has_grad: &[bool],
        copies: bool,
        refitted: &mut Vec<Refitted>,
    ) -> Result<()> {
        let mut has_grad = has_grad.iter();
        let master_copies = self.master_copies;
        for (group, (active, rule)) in self.groups.iter_mut().zip(rules).enumerate() {
            let of_elements = rule.kernel();
            for (index, parameter) in active.params.iter_mut().enumerate() {
                if has_grad.next() != Some(&true) {
                    continue;
                }
                let kernel = if parameter.as_matrix(rule).is_some() { STEP } else { of_elements };
                let (old, new) = (parameter.kernel.map_or(&[][..], |k| k.slots), kernel.slots);
                let add_master = master_copies && parameter.is_half() && !parameter.state.has_master();
                let is_fit = parameter.kernel.is_some() && (std::ptr::eq(old, new) || old == new) && !add_master;
                if is_fit && !copies {
                    parameter.kernel = Some(kernel);
                    continue;
                }
                let state = parameter.state.refit(&parameter.var, old, new, add_master)?;
                let state = std::mem::replace(&mut parameter.state, state);
                let kernel = parameter.kernel.replace(kernel);
                let dropped = old.iter().copied().filter(|slot| !new.contains(slot)).collect();
                let starts = kernel.is_none() || new.iter().any(|slot| !old.contains(slot));
                refitted.push(Refitted { group, index, kernel, state, dropped, starts });
            }
        }
        Ok(())
    }
}

/// Where a parameter stands: its update, whether its state starts, and the bits of what its rule keeps on the host.
type Place = (u64, bool, Vec<u64>);

/// What a rule computes on the host for parameters that stand at the same place.
#[derive(Clone)]
struct Computed {
    scalars: Vec<f64>,
    step_size: f64,
    numbers: Vec<f64>,
}

/// The updates of all parameters that have a gradient, and the numbers that their rules keep on the host after them.
fn updates<'a, R: Rule>(
    groups: &'a mut [Active<R>],
    rules: &[R],
    grads: Vec<Option<Tensor>>,
    matrices: &mut BTreeMap<usize, Transformed>,
    common: &Common,
    refitted: &[Refitted],
) -> (Vec<Update<'a>>, Vec<Vec<f64>>) {
    let mut grads = grads.into_iter().enumerate();
    let mut starting = refitted.iter().filter(|r| r.starts).map(|r| (r.group, r.index)).peekable();
    let (mut updates, mut numbers_after) = (Vec::new(), Vec::new());
    for (group, (active, rule)) in groups.iter_mut().zip(rules).enumerate() {
        let (kernel, options) = (rule.kernel(), rule.options());
        let lr = || rule.field("lr").map_or(0.0, f64::from);
        let corrected = if options.corrected_decay { active.share_of_largest_lr(lr()) } else { 1.0 };
        let (weight_decay, grad_scale) = (rule.weight_decay() * corrected, common.grad_scale);
        let numbers = StepNumbers {
            lr: 0.0,
            weight_decay,
            grad_scale: if options.maximize { -grad_scale } else { grad_scale },
            clip_value: common.clip_value,
            smallest_state: 0.0,
            cautious: options.cautious,
            mask_scale: 1.0,
            cautious_decay: options.cautious_decay,
        };
        // Almost all parameters stand at the same place.
        let mut known: HashMap<Place, Computed> = HashMap::new();
        let mut latest: Option<(Place, Computed)> = None;
        for (index, parameter) in active.params.iter_mut().enumerate() {
            let Some((place, grad)) = grads.next() else { break };
            let transformed = matrices.get_mut(&place);
            if grad.is_none() && transformed.is_none() {
                continue;
            }
            let t = parameter.updates + 1;
            let starts = starting.next_if_eq(&(group, index)).is_some();
            let is_rounded = parameter.var.dtype() == DType::BF16 && !parameter.state.has_master();
            let seed = common.stochastic_rounding.filter(|_| is_rounded);
            let noise = seed.map(|seed| noise_key(seed, &parameter.name, t));
            if let (Some(transformed), Some(matrix)) = (transformed, parameter.as_matrix(rule)) {
                numbers_after.push(Vec::new());
                let Some(grad) = transformed.direction.take() else { continue };
                let numbers = StepNumbers {
                    lr: matrix.step_size(),
                    weight_decay: matrix.weight_decay() * corrected,
                    grad_scale: 1.0,
                    clip_value: f64::INFINITY,
                    // The direction is cautious already.
                    cautious: false,
                    ..numbers
                };
                let (param, state, scalars) = (&parameter.var, &mut parameter.state, Vec::new());
                updates.push(Update { param, grad, state, kernel: STEP, scalars, numbers, by_norm: false, noise });
                continue;
            }
            let Some(grad) = grad else { continue };
            let first = rule.numbers();
            let mut own = parameter.numbers.clone();
            if own.len() != first.len() {
                own = first.iter().map(|(_, first)| *first).collect();
            }
            let place: Place = (t, starts, own.iter().map(|x| x.to_bits()).collect());
            let compute = || {
                let mut at = Progress { t, starts, numbers: &mut own };
                let scalars = rule.scalars(&mut at);
                let step_size = rule.step_size(&at);
                Computed { scalars, step_size, numbers: own }
            };
            let is_there = |(known, _): &&(Place, Computed)| *known == place;
            let computed = match latest.as_ref().filter(is_there) {
                Some((_, computed)) => computed.clone(),
                None => {
                    let computed = known.entry(place.clone()).or_insert_with(compute).clone();
                    latest = Some((place, computed.clone()));
                    computed
                }
            };
            let Computed { scalars, step_size, numbers: after } = computed;
            let (param, state) = (&parameter.var, &mut parameter.state);
            let drops_tiny = t.is_multiple_of(TINY_EVERY) && parameter.var.dtype() != DType::F64;
            let smallest_state = if drops_tiny { rule.smallest_state() } else { 0.0 };
            let numbers = StepNumbers { lr: step_size, smallest_state, ..numbers };
            updates.push(Update { param, grad, state, kernel, scalars, numbers, by_norm: true, noise });
            numbers_after.push(after);
        }
    }
    (updates, numbers_after)
}

/// A parameter whose state was changed to fit a kernel, and what it was before.
pub(super) struct Refitted {
    group: usize,
    index: usize,
    kernel: Option<&'static Kernel>,
    state: State,
    dropped: Vec<&'static str>,
    /// Whether a slot starts in this update.
    starts: bool,
}

fn warn_of_dropped_slots(refitted: &[Refitted]) {
    let mut counts: HashMap<&'static str, usize> = HashMap::new();
    refitted.iter().flat_map(|r| &r.dropped).for_each(|slot| *counts.entry(slot).or_default() += 1);
    for (slot, count) in counts {
        tracing::warn!("the {slot} of {count} parameters is dropped: the hyperparameters do not use it any more");
    }
}

/// The key of the random numbers of a parameter's update.
fn noise_key(seed: u64, name: &str, t: u64) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let of_name = name.bytes().fold(seed, |key, byte| mix(key ^ u64::from(byte)).wrapping_add(0x9E37_79B9_7F4A_7C15));
    mix(of_name ^ t)
}
