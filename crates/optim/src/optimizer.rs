//! The optimizer: groups of parameters, their state, and the step.

use crate::backend::{self, Addition, Norm, Pass, State, Tables, Update};
use crate::error::{Error, Result};
use crate::grads::{Accumulator, Clip};
use crate::group::{Group, named_params};
use crate::rule::{Kernel, Rule};
use crate::schedule::Schedule;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use candle_nn::{Optimizer, VarMap};
use std::collections::{HashMap, HashSet};

/// Applies a rule to parameters. `R` is the rule's struct of hyperparameters; [`AdamW`](crate::AdamW) and the other
/// names of the crate's root are this type for each rule, [`AnyOptimizer`](crate::AnyOptimizer) for one chosen by name.
///
/// A step reads each gradient once and updates all parameters of all groups in one parallel pass. A parameter without a
/// gradient is left alone wholly: no decay, no change of state, and it is not counted as an update of that parameter.
///
/// bf16 and f16 parameters keep their state in f32.
///
/// All parameters are on one device, and the state beside them. On a GPU a step is one launch per 256 tensors of a kind (two
/// more for clipping by norm, two for a trust ratio) and copies nothing to the host: clip factor, norms and trust ratios
/// stay on the device. [`grad_norm`](Self::grad_norm) and [`state_dict`](Self::state_dict) wait for it.
///
/// Learning rate and step-dependent scalars are in small tables on the device that a step refreshes from the host before its
/// launches, and which keep their addresses on CUDA. So a step's launches can be captured in a CUDA graph, with gradients that
/// keep their addresses and after a step that made the state; but what the host uploads is not part of a graph: a replay
/// repeats the step with the learning rate and bias corrections of its capture.
#[derive(Debug)]
pub struct Stepper<R> {
    pub(crate) groups: Vec<Active<R>>,
    pub(crate) step: u64,
    pub(crate) has_names: bool,
    clip: Option<Clip>,
    measure_grad_norm: bool,
    grad_norm: Option<Norm>,
    master_copies: bool,
    stochastic_rounding: Option<u64>,
    tables: Tables,
    pub(crate) accumulated: Accumulator,
    /// Of SAM, between its two steps: the group and index of each perturbed parameter with its value before.
    pub(crate) perturbed: Option<Vec<(usize, usize, Tensor)>>,
}

/// A group in use.
#[derive(Debug)]
pub(crate) struct Active<R> {
    pub rule: R,
    schedules: Vec<(String, Schedule)>,
    pub params: Vec<Parameter>,
}

/// A parameter in use.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub name: String,
    pub var: Var,
    address: usize,
    frozen: bool,
    /// How often it was updated: the `t` of bias corrections.
    pub updates: u64,
    /// Whose slots the state has; none before the first update.
    pub kernel: Option<&'static Kernel>,
    pub state: State,
}

impl Parameter {
    fn new(name: String, var: Var) -> Result<Self> {
        let problem = |problem: String| Error::Parameter { name: name.clone(), problem };
        let dtype = var.dtype();
        if !matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16) {
            return Err(problem(format!("its type is {dtype:?}, but must be f32, f64, bf16 or f16")));
        }
        if dtype == DType::F64 && var.device().is_metal() {
            return Err(problem("its type is F64, which Metal does not have".to_string()));
        }
        if !var.is_contiguous() {
            return Err(problem(format!("its layout is not contiguous: strides {:?}", var.stride())));
        }
        let (address, state) = (backend::storage_address(&var), State::new(&var));
        Ok(Self { name, var, address, frozen: false, updates: 0, kernel: None, state })
    }

    /// The gradient as the backend takes it.
    fn prepared(&self, grad: Tensor, params: &HashSet<usize>) -> Result<Tensor> {
        let problem = |problem: String| Error::Parameter { name: self.name.clone(), problem };
        if grad.shape() != self.var.shape() {
            let (g, p) = (grad.shape(), self.var.shape());
            return Err(problem(format!("its gradient has the shape {g:?}, but it has {p:?}")));
        }
        if !grad.device().same_device(self.var.device()) {
            let (g, p) = (grad.device().location(), self.var.device().location());
            return Err(problem(format!("its gradient is on {g:?}, but it is on {p:?}")));
        }
        let (dtype, half) = (self.var.dtype(), matches!(self.var.dtype(), DType::BF16 | DType::F16));
        let grad = match grad.dtype() {
            same if same == dtype => grad,
            DType::F32 if half => grad,
            other if other.is_float() => backend::to_dtype(&grad, if half { DType::F32 } else { dtype })?,
            other => return Err(problem(format!("its gradient has the type {other:?}"))),
        };
        let grad = grad.contiguous()?;
        // A gradient that is a parameter itself could not be read while that parameter is written.
        Ok(if params.contains(&backend::storage_address(&grad)) { grad.force_contiguous()? } else { grad })
    }

    /// Makes the state fit the kernel: slots that it has keep their values, others start at 0.
    fn fit(&mut self, kernel: &'static Kernel, master_copy: bool) -> Result<()> {
        let same = self.kernel.is_some_and(|k| std::ptr::eq(k, kernel) || k.slots == kernel.slots);
        if !same {
            self.state.fit(&self.var, self.kernel.map_or(&[][..], |k| k.slots), kernel.slots)?;
        }
        self.kernel = Some(kernel);
        if master_copy && matches!(self.var.dtype(), DType::BF16 | DType::F16) {
            self.state.keep_master(&self.var)?;
        }
        Ok(())
    }
}

impl<R: Rule + Clone> Stepper<R> {
    /// An optimizer of all variables of a `VarMap` (of floating point), by their names.
    ///
    /// # Errors
    /// A hyperparameter out of range; variables that share storage or are on different devices.
    pub fn named(varmap: &VarMap, config: R) -> Result<Self> {
        Self::from_groups(vec![Group::new(named_params(varmap), config)])
    }

    /// An optimizer of groups with hyperparameters and schedules of their own.
    ///
    /// # Errors
    /// No group; a hyperparameter out of range; a parameter of a type other than f32, f64, bf16, f16, or that is not
    /// contiguous; a name given twice; parameters that share storage (a tied weight is to be given once) or are on different
    /// devices.
    pub fn from_groups(groups: Vec<Group<R>>) -> Result<Self> {
        if groups.is_empty() {
            return Err(Error::Order("an optimizer needs at least one group, which may be empty"));
        }
        let mut stepper = Self {
            groups: Vec::with_capacity(groups.len()),
            step: 0,
            has_names: true,
            clip: None,
            measure_grad_norm: false,
            grad_norm: None,
            master_copies: false,
            stochastic_rounding: None,
            tables: Tables::default(),
            accumulated: Accumulator::default(),
            perturbed: None,
        };
        for group in groups {
            group.rule.validate()?;
            stepper.groups.push(Active { rule: group.rule, schedules: group.schedules, params: Vec::new() });
            for (name, var) in group.params {
                stepper.add(name, var)?;
            }
        }
        Ok(stepper)
    }

    /// An optimizer with the rule's defaults but for the learning rate.
    ///
    /// # Errors
    /// As [`from_groups`](Self::from_groups).
    pub fn new_lr(vars: Vec<Var>, learning_rate: f64) -> candle_core::Result<Self>
    where
        R: Default,
    {
        let mut config = R::default();
        config.set_field("lr", learning_rate.into());
        Self::new(vars, config)
    }

    /// Adds a parameter to the last group.
    fn add(&mut self, name: String, var: Var) -> Result<()> {
        let parameter = Parameter::new(name, var)?;
        for other in self.all_params() {
            if other.name == parameter.name {
                return Err(Error::SameName { name: parameter.name });
            }
        }
        if let Some(other) = self.all_params().find(|other| other.address == parameter.address) {
            return Err(Error::Tied { first: other.name.clone(), second: parameter.name });
        }
        if let Some(other) = self.all_params().next().filter(|o| !o.var.device().same_device(parameter.var.device())) {
            let (first, this) = (other.var.device().location(), parameter.var.device().location());
            let problem =
                format!("it is on {this:?}, but `{}` is on {first:?}: an optimizer has one device", other.name);
            return Err(Error::Parameter { name: parameter.name, problem });
        }
        if let Some(group) = self.groups.last_mut() {
            group.params.push(parameter);
        }
        Ok(())
    }

    /// Adds a variable to the last group.
    ///
    /// # Errors
    /// As [`from_groups`](Self::from_groups).
    pub fn push(&mut self, var: &Var) -> Result<()> {
        let count = self.all_params().count();
        self.add(count.to_string(), var.clone())
    }

    /// The variables.
    pub fn into_inner(self) -> Vec<Var> {
        self.groups.into_iter().flat_map(|g| g.params).map(|p| p.var).collect()
    }

    pub(crate) fn all_params(&self) -> impl Iterator<Item = &Parameter> {
        self.groups.iter().flat_map(|g| &g.params)
    }

    /// The hyperparameters of the first group.
    pub fn params(&self) -> &R {
        self.group_params(0)
    }

    /// Sets the hyperparameters of the first group. They are checked at the next step.
    pub fn set_params(&mut self, params: R) {
        self.set_group_params(0, params);
    }

    /// The hyperparameters of a group; scheduled ones have their value of the latest step.
    ///
    /// # Panics
    /// There is no such group.
    pub fn group_params(&self, group: usize) -> &R {
        &self.groups[group].rule
    }

    /// Sets the hyperparameters of a group. They are checked at the next step; scheduled ones are overwritten there.
    ///
    /// # Panics
    /// There is no such group.
    pub fn set_group_params(&mut self, group: usize, params: R) {
        self.groups[group].rule = params;
    }

    /// Sets, or ends with `None`, the clipping of gradients.
    ///
    /// # Errors
    /// A limit that is not above 0.
    pub fn set_clip(&mut self, clip: Option<Clip>) -> Result<()> {
        self.clip = clip.map(Clip::check).transpose()?;
        Ok(())
    }

    /// Keeps an f32 copy of every bf16 and f16 parameter from its first update on: updates that are too small for the
    /// parameter's own precision add up there, and the parameter is its rounding.
    ///
    /// # Errors
    /// After the first step.
    pub fn set_master_copies(&mut self, on: bool) -> Result<()> {
        if self.step > 0 {
            return Err(Error::Order("master copies are chosen before the first step"));
        }
        self.master_copies = on;
        Ok(())
    }

    /// Rounds bf16 parameters that have no master copy stochastically, or ends it with `None`: a value between two neighbours
    /// goes to either with a probability of how close it is, so that small updates are right on average instead of lost. The
    /// random numbers are a function of the seed, the parameter's name, its count of updates and the element, the same on
    /// every device.
    pub fn set_stochastic_rounding(&mut self, seed: Option<u64>) {
        self.stochastic_rounding = seed;
    }

    /// Measures the global gradient norm at every step, for [`grad_norm`](Self::grad_norm); it costs a pass over the
    /// gradients. Clipping by norm measures it anyway.
    pub fn measure_grad_norm(&mut self, on: bool) {
        self.measure_grad_norm = on;
    }

    /// The global gradient norm of the latest step, before clipping, where it was measured. A step leaves it on the device;
    /// this waits for it.
    ///
    /// # Errors
    /// The device fails.
    pub fn grad_norm(&self) -> Result<Option<f64>> {
        Ok(self.grad_norm.as_ref().map(Norm::read).transpose()?)
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Leaves out the parameters whose name fits, until [`unfreeze`](Self::unfreeze); returns how many fit.
    pub fn freeze(&mut self, fits: impl Fn(&str) -> bool) -> usize {
        self.set_frozen(true, fits)
    }

    /// Takes frozen parameters back in; their state is as it was.
    pub fn unfreeze(&mut self, fits: impl Fn(&str) -> bool) -> usize {
        self.set_frozen(false, fits)
    }

    fn set_frozen(&mut self, frozen: bool, fits: impl Fn(&str) -> bool) -> usize {
        let params = self.groups.iter_mut().flat_map(|g| &mut g.params);
        params.filter(|p| fits(&p.name)).map(|p| p.frozen = frozen).count()
    }

    /// The gradients of all parameters in order, checked and prepared; `None` where there is none or it is frozen.
    fn gradients(&self, of: impl Fn(&Parameter) -> Option<Tensor>) -> Result<Vec<Option<Tensor>>> {
        let addresses: HashSet<usize> = self.all_params().map(|p| p.address).collect();
        self.all_params().map(|p| of(p).map(|g| p.prepared(g, &addresses)).transpose()).collect()
    }

    fn stored_gradients(&self, grads: &GradStore) -> Result<Vec<Option<Tensor>>> {
        self.gradients(|p| if p.frozen { None } else { grads.get(&p.var).cloned() })
    }

    /// Adds the gradients of a micro-batch to those before it, in f32 (f64 for f64 parameters).
    /// [`step_accumulated`](Self::step_accumulated) then steps with their mean.
    ///
    /// # Errors
    /// A gradient of another shape or device than its parameter.
    pub fn accumulate(&mut self, grads: &GradStore) -> Result<()> {
        let grads = self.stored_gradients(grads)?;
        self.accumulated.add(grads)
    }

    /// A step with the mean of the accumulated gradients: where every loss is the mean over a micro-batch of the same
    /// size, the same as one step with all of them as one batch.
    ///
    /// # Errors
    /// Nothing was accumulated; as [`Optimizer::step`].
    pub fn step_accumulated(&mut self) -> Result<()> {
        let (sums, count) = self.accumulated.take();
        if count == 0 {
            return Err(Error::Order("step_accumulated: no gradients were accumulated"));
        }
        let mut sums = sums.into_iter();
        let grads = self.all_params().map(|p| {
            let sum = sums.next().flatten();
            sum.map(|s| p.prepared(s, &HashSet::new())).transpose()
        });
        let grads = grads.collect::<Result<Vec<_>>>()?;
        self.update(grads, 1.0 / count as f64)
    }

    /// Evaluates the loss as often as the rule needs it and makes a step: once, or twice for SAM. The closure gets the
    /// number of the evaluation, 0 or 1; batch-norm statistics should move in number 0 only, and both must use the same
    /// batch (and dropout mask). Returns the loss of evaluation 0.
    ///
    /// # Errors
    /// Those of the closure, after which parameters are as before the call; as [`Optimizer::step`].
    pub fn step_with(&mut self, mut loss: impl FnMut(usize) -> candle_core::Result<Tensor>) -> Result<Tensor> {
        self.step_with_gradients(|evaluation| {
            let loss = loss(evaluation)?;
            let grads = loss.backward()?;
            Ok((loss, grads))
        })
    }

    /// [`step_with`](Self::step_with) where the closure gives the gradients with the loss, of which it makes them in another way
    /// than by [`Tensor::backward`].
    ///
    /// # Errors
    /// As [`step_with`](Self::step_with).
    pub fn step_with_gradients(
        &mut self,
        mut evaluate: impl FnMut(usize) -> candle_core::Result<(Tensor, GradStore)>,
    ) -> Result<Tensor> {
        let (first, grads) = evaluate(0)?;
        let first = first.detach();
        if self.groups.iter().all(|g| g.rule.sharpness().is_none()) {
            self.step(&grads)?;
            return Ok(first);
        }
        self.first_step(&grads)?;
        drop(grads);
        match evaluate(1) {
            Ok((_, grads)) => self.second_step(&grads)?,
            Err(error) => {
                self.restore()?;
                return Err(error.into());
            }
        }
        Ok(first)
    }

    /// SAM's first step: moves the parameters to where the second gradient is to be taken.
    ///
    /// # Errors
    /// No group's rule is SAM; the parameters are there already; as [`Optimizer::step`].
    pub fn first_step(&mut self, grads: &GradStore) -> Result<()> {
        if self.perturbed.is_some() {
            return Err(Error::Order("first_step: second_step has to come between two first steps"));
        }
        if self.groups.iter().all(|g| g.rule.sharpness().is_none()) {
            return Err(Error::Order("first_step: the rule is not sam"));
        }
        let mut grads = self.stored_gradients(grads)?.into_iter();
        self.apply_schedules()?;
        let mut moved = Vec::new();
        for (g, group) in self.groups.iter().enumerate() {
            for (p, parameter) in group.params.iter().enumerate() {
                if let (Some(grad), Some(sharpness)) = (grads.next().flatten(), group.rule.sharpness()) {
                    moved.push((g, p, &parameter.var, grad, sharpness));
                }
            }
        }
        if moved.is_empty() {
            return Err(self.no_gradient());
        }
        let weighted = moved.iter().map(|(_, _, var, grad, s)| (grad, s.adaptive.then_some(var.as_tensor())));
        let norm = backend::global_norm(&mut self.tables, &weighted.collect::<Vec<_>>(), 1.0, f64::INFINITY)?;
        let copies = moved.iter().map(|(g, p, var, ..)| Ok((*g, *p, var.force_contiguous()?)));
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let additions = moved.into_iter().map(|(_, _, to, addend, sharpness)| Addition {
            to,
            addend,
            scale: sharpness.rho,
            by_norm: Some((norm.clone(), 1e-12)),
            adaptive: sharpness.adaptive,
        });
        backend::add(&mut self.tables, additions.collect())?;
        self.perturbed = Some(copies);
        Ok(())
    }

    /// SAM's second step: restores the parameters to their exact bits and makes the base rule's step with the gradients
    /// taken in between.
    ///
    /// # Errors
    /// [`first_step`](Self::first_step) did not come before; as [`Optimizer::step`].
    pub fn second_step(&mut self, grads: &GradStore) -> Result<()> {
        if self.perturbed.is_none() {
            return Err(Error::Order("second_step: first_step has to come before it"));
        }
        self.restore()?;
        let grads = self.stored_gradients(grads)?;
        self.update(grads, 1.0)
    }

    fn restore(&mut self) -> Result<()> {
        for (g, p, before) in self.perturbed.take().unwrap_or_default() {
            self.groups[g].params[p].var.set(&before)?;
        }
        Ok(())
    }

    fn no_gradient(&self) -> Error {
        Error::NoGradient { count: self.all_params().filter(|p| !p.frozen).count() }
    }

    fn apply_schedules(&mut self) -> Result<()> {
        for group in &mut self.groups {
            for (key, schedule) in &group.schedules {
                group.rule.set_field(key, schedule.at(self.step).into());
            }
            group.rule.validate()?;
        }
        Ok(())
    }

    fn update(&mut self, grads: Vec<Option<Tensor>>, scale: f64) -> Result<()> {
        self.apply_schedules()?;
        if grads.iter().all(Option::is_none) {
            // Without any parameter there is nothing to do, as in candle.
            let unfrozen = self.all_params().any(|p| !p.frozen);
            return if unfrozen { Err(self.no_gradient()) } else { Ok(()) };
        }
        let read_backs = backend::read_backs();
        let max = if let Some(Clip::GlobalNorm(max)) = self.clip { Some(max) } else { None };
        let norm = if max.is_some() || self.measure_grad_norm {
            let all: Vec<_> = grads.iter().flatten().map(|grad| (grad, None)).collect();
            Some(backend::global_norm(&mut self.tables, &all, scale, max.unwrap_or(f64::INFINITY))?)
        } else {
            None
        };
        let grad_scale = match (max, &norm) {
            // A norm of NaN makes every gradient NaN, as in PyTorch, rather than hide the failure.
            (Some(max), Some(Norm::Host(norm))) if norm.is_nan() => scale * (max / norm),
            (Some(max), Some(Norm::Host(norm))) => scale * (max / (norm + 1e-6)).min(1.0),
            _ => scale,
        };
        let clip_value = if let Some(Clip::Value(max)) = self.clip { max } else { f64::INFINITY };

        let mut grads = grads.into_iter();
        let mut updates = Vec::new();
        for group in &mut self.groups {
            let (rule, kernel) = (&group.rule, group.rule.kernel());
            let number = |key: &str| rule.field(key).map_or(0.0, f64::from);
            let pass = Pass { lr: number("lr"), weight_decay: number("weight_decay"), grad_scale, clip_value };
            // Almost all parameters have been updated equally often.
            let mut scalars: HashMap<u64, Vec<f64>> = HashMap::new();
            for parameter in &mut group.params {
                let Some(grad) = grads.next().flatten() else { continue };
                parameter.fit(kernel, self.master_copies)?;
                let t = parameter.updates + 1;
                let scalars = scalars.entry(t).or_insert_with(|| rule.scalars(t)).clone();
                let is_rounded = parameter.var.dtype() == DType::BF16 && !parameter.state.has_master();
                let seed = self.stochastic_rounding.filter(|_| is_rounded);
                let noise = seed.map(|seed| noise_key(seed, &parameter.name, t));
                let (param, state) = (&parameter.var, &mut parameter.state);
                updates.push(Update { param, grad, state, kernel, scalars, pass, ratio: rule.trust_ratio(), noise });
                parameter.updates = t;
            }
        }
        backend::step(&mut self.tables, updates, norm.as_ref().filter(|_| max.is_some()))?;
        debug_assert_eq!(read_backs, backend::read_backs(), "a step waits for nothing on the device");
        self.grad_norm = norm;
        self.step += 1;
        Ok(())
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

impl<R: Rule + Clone> Optimizer for Stepper<R> {
    type Config = R;

    /// An optimizer of variables without names. Variables that are not of floating point are left out, as in candle.
    fn new(vars: Vec<Var>, config: R) -> candle_core::Result<Self> {
        let floats = vars.into_iter().filter(|var| var.dtype().is_float());
        let params = floats.enumerate().map(|(i, var)| (i.to_string(), var)).collect();
        let mut stepper = Self::from_groups(vec![Group::new(params, config)])?;
        stepper.has_names = false;
        Ok(stepper)
    }

    /// One update of every parameter that has a gradient.
    ///
    /// With SAM, which needs two gradients (see [`Stepper::step_with`]): after [`Stepper::first_step`] this is
    /// [`Stepper::second_step`], so `backward_step` completes the update; otherwise it is the base rule's own step with
    /// the given gradient, without any search for flat minima.
    ///
    /// # Errors
    /// No parameter has a gradient; a gradient of another shape or device than its parameter; a hyperparameter out of
    /// range. Parameters and state are then as before.
    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        if self.perturbed.is_some() {
            return Ok(self.second_step(grads)?);
        }
        let grads = self.stored_gradients(grads)?;
        Ok(self.update(grads, 1.0)?)
    }

    /// The learning rate of the first group in the step to come.
    fn learning_rate(&self) -> f64 {
        let Active { rule, schedules, .. } = &self.groups[0];
        match schedules.iter().find(|(key, _)| key == "lr") {
            Some((_, schedule)) => schedule.at(self.step),
            None => rule.field("lr").map_or(0.0, f64::from),
        }
    }

    /// Sets the learning rate of every group and ends their schedules of it. It is checked at the next step.
    fn set_learning_rate(&mut self, lr: f64) {
        for group in &mut self.groups {
            group.schedules.retain(|(key, _)| key != "lr");
            group.rule.set_field("lr", lr.into());
        }
    }
}
