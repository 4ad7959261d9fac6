//! The optimizer: groups of parameters, their state, and its settings.

use super::accumulate::Accumulator;
use super::average::Averages;
use super::clip::Clip;
use super::displacement::Displacement;
use super::groups::{Group, named_params};
use super::lbfgs::Memory;
use super::parameter::Parameter;
use crate::backend::device::tables::Tables;
use crate::backend::kept::Kept;
use crate::backend::state::State;
use crate::backend::update::Norm;
use crate::error::{Error, Result};
use crate::rule::contract::Rule;
use crate::schedule::Schedule;
use candle_core::Var;
use candle_nn::{Optimizer, VarMap};
use std::collections::HashMap;

/// Applies a rule to parameters. `R` is the rule's struct of hyperparameters; [`AdamW`](crate::AdamW) and the other
/// names of the crate's root are this type for each rule, [`AnyOptimizer`](crate::AnyOptimizer) for one chosen by name.
///
/// A step reads each gradient once and updates all parameters of all groups in one parallel pass. A parameter without a
/// gradient is skipped: no decay, no change of state, and no update is counted for it.
///
/// A call that fails leaves parameters, state, counts and accumulated gradients as they were. Between whole steps an optimizer may
/// hold accumulated gradients, or SAM's first step; a call that would lose them is an error that says what to call.
///
/// bf16 and f16 parameters keep their state in f32.
///
/// On the CPU a step takes the threads of the rayon pool that it is called in, but depends on none of them: it ends also where
/// they wait to read the parameters that it updates.
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
pub struct FusedOptimizer<R> {
    pub(super) groups: Vec<Active<R>>,
    pub(super) step: u64,
    pub(super) has_names: bool,
    pub(super) clip: Option<Clip>,
    pub(super) measure_grad_norm: bool,
    pub(super) grad_norm: Option<Norm>,
    pub(super) master_copies: bool,
    pub(super) stochastic_rounding: Option<u64>,
    pub(super) tables: Tables,
    /// Of the first part of the matrices' updates.
    pub(super) first_tables: Tables,
    /// Of matrices, by the index of the parameter: slots of the update before the latest one. The next one is made in their memory.
    pub(super) spare_slots: HashMap<usize, State>,
    /// Factors of sums over all parameters.
    pub(super) kept: Kept,
    pub(super) accumulated: Accumulator,
    /// Of SAM, between its two steps.
    pub(super) perturbation: Option<Displacement>,
    pub(super) averages: Averages,
    /// Of L-BFGS.
    pub(super) memory: Memory,
    /// Between `eval` and `train`.
    pub(super) evaluated: Option<Displacement>,
}

/// A group in use.
#[derive(Debug)]
pub(crate) struct Active<R> {
    pub rule: R,
    pub schedules: Vec<(String, Schedule)>,
    pub params: Vec<Parameter>,
}

impl<R> Active<R> {
    /// The learning rate as a share of the largest one of its schedule; 1 where it has none.
    pub(super) fn share_of_largest_lr(&self, lr: f64) -> f64 {
        match self.schedules.iter().find(|(key, _)| key == "lr") {
            Some((_, schedule)) if schedule.peak() > 0.0 => lr / schedule.peak(),
            _ => 1.0,
        }
    }
}

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// An optimizer of all variables of a `VarMap` (of floating point), by their names.
    ///
    /// # Errors
    /// The `VarMap` has no such variable, as before the model is built; a hyperparameter out of range; variables that share
    /// storage or are on different devices.
    pub fn named(varmap: &VarMap, config: R) -> Result<Self> {
        Self::from_groups(vec![Group::new(named_params(varmap), config)])?.with_parameters()
    }

    pub(super) fn with_parameters(self) -> Result<Self> {
        if self.all_params().next().is_none() { Err(Error::NoParameters) } else { Ok(self) }
    }

    /// An optimizer of groups with hyperparameters and schedules of their own. Groups may be empty, and parameters added to the
    /// last one by [`push`](Self::push), but a step without any parameter is an error.
    ///
    /// # Errors
    /// No group; a hyperparameter out of range; a parameter of a type other than f32, f64, bf16, f16, or that is not
    /// contiguous; a name given twice; parameters that share storage (a tied weight is to be given once) or are on different
    /// devices.
    pub fn from_groups(groups: Vec<Group<R>>) -> Result<Self> {
        if groups.is_empty() {
            return Err(Error::WrongState("an optimizer needs at least one group, which may be empty"));
        }
        let mut optimizer = Self {
            groups: Vec::with_capacity(groups.len()),
            step: 0,
            has_names: true,
            clip: None,
            measure_grad_norm: false,
            grad_norm: None,
            master_copies: false,
            stochastic_rounding: None,
            tables: Tables::default(),
            first_tables: Tables::default(),
            spare_slots: HashMap::new(),
            kept: Kept::default(),
            accumulated: Accumulator::default(),
            perturbation: None,
            averages: Averages::default(),
            memory: Memory::default(),
            evaluated: None,
        };
        for group in groups {
            group.rule.validate()?;
            optimizer.groups.push(Active { rule: group.rule, schedules: group.schedules, params: Vec::new() });
            for (name, var) in group.params {
                optimizer.add(name, var)?;
            }
        }
        Ok(optimizer)
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
        if self.stochastic_rounding.is_some() {
            parameter.check_stochastic_rounding(self.master_copies)?;
        }
        for other in self.all_params() {
            if other.name == parameter.name {
                return Err(Error::RepeatedName { name: parameter.name });
            }
        }
        if let Some(other) = self.all_params().find(|other| other.address == parameter.address) {
            return Err(Error::TiedParameters { first: other.name.clone(), second: parameter.name });
        }
        if let Some(other) = self.all_params().next().filter(|o| !o.var.device().same_device(parameter.var.device())) {
            let (first, this) = (other.var.device().location(), parameter.var.device().location());
            let problem =
                format!("it is on {this:?}, but `{}` is on {first:?}: an optimizer has one device", other.name);
            return Err(Error::UnsuitableParameter { name: parameter.name, problem });
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

    /// Whether a master copy of the parameter is to be kept.
    pub(super) fn wants_master(&self, parameter: &Parameter) -> bool {
        self.master_copies && parameter.is_half()
    }

    pub(super) fn all_params_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.groups.iter_mut().flat_map(|g| &mut g.params)
    }

    pub(super) fn all_params(&self) -> impl Iterator<Item = &Parameter> {
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

    /// Lets a hyperparameter of every group follow a schedule, as [`Group::schedule`] does for one. It counts from the
    /// optimizer's first step, also where that was made already.
    ///
    /// # Errors
    /// A group's rule has no such hyperparameter, or the schedule's value at the step to come is out of its range.
    pub fn set_schedule(&mut self, key: &str, schedule: &Schedule) -> Result<()> {
        let value = schedule.at(self.step).into();
        self.groups.iter().try_for_each(|group| group.rule.clone().set(key, value))?;
        schedule.warn_of_one_update();
        for group in &mut self.groups {
            group.rule.set_field(key, value);
            group.schedules.retain(|(other, _)| other != key);
            group.schedules.push((key.to_string(), schedule.clone()));
        }
        Ok(())
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
    /// parameter's own precision add up there, and the parameter is its rounding. Where a parameter is written by someone else,
    /// as by loading a model, the next step starts from what was written: an element whose copy does not round to it takes its
    /// value.
    ///
    /// # Errors
    /// After the first step; `false` with a parameter of f16 and stochastic rounding.
    pub fn set_master_copies(&mut self, on: bool) -> Result<()> {
        if self.step > 0 {
            return Err(Error::WrongState("master copies are chosen before the first step"));
        }
        if self.stochastic_rounding.is_some() {
            self.all_params().try_for_each(|p| p.check_stochastic_rounding(on))?;
        }
        self.master_copies = on;
        Ok(())
    }

    /// Rounds bf16 parameters that have no master copy stochastically, or ends it with `None`: a value between two neighbours
    /// goes to either with a probability of how close it is, so that small updates are right on average instead of lost. The
    /// random numbers are a function of the seed, the parameter's name, its count of updates and the element, the same on
    /// every device. Nothing changes for f32 and f64 parameters, which round to nearest.
    ///
    /// # Errors
    /// A parameter is of f16, and without a master copy.
    pub fn set_stochastic_rounding(&mut self, seed: Option<u64>) -> Result<()> {
        if seed.is_some() {
            self.all_params().try_for_each(|p| p.check_stochastic_rounding(self.master_copies))?;
        }
        self.stochastic_rounding = seed;
        Ok(())
    }

    /// Measures the global gradient norm at every step, for [`grad_norm`](Self::grad_norm); it costs a pass over the
    /// gradients. Clipping by norm measures it anyway.
    pub fn set_measure_grad_norm(&mut self, on: bool) {
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

    /// Leaves out the parameters whose name fits, until [`unfreeze`](Self::unfreeze); returns how many fit. Gradients that were
    /// accumulated for them are dropped.
    pub fn freeze(&mut self, fits: impl Fn(&str) -> bool) -> usize {
        self.set_frozen(true, fits)
    }

    /// Takes frozen parameters back in; their state is as it was.
    pub fn unfreeze(&mut self, fits: impl Fn(&str) -> bool) -> usize {
        self.set_frozen(false, fits)
    }

    fn set_frozen(&mut self, frozen: bool, fits: impl Fn(&str) -> bool) -> usize {
        let params = self.groups.iter_mut().flat_map(|g| &mut g.params).enumerate();
        let fitting = params.filter(|(_, p)| fits(&p.name)).map(|(index, p)| {
            p.frozen = frozen;
            if frozen {
                self.accumulated.drop_sum(index);
            }
        });
        fitting.count()
    }
}
