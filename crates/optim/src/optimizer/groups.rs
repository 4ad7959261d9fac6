//! Parameters by name, and groups of them with hyperparameters and schedules of their own.

use crate::error::Result;
use crate::rule::contract::Rule;
use crate::schedule::Schedule;
use candle_core::Var;
use candle_nn::VarMap;

/// Parameters that share hyperparameters and schedules.
#[derive(Clone, Debug)]
pub struct Group<R> {
    pub(super) params: Vec<(String, Var)>,
    pub(super) rule: R,
    pub(super) schedules: Vec<(String, Schedule)>,
}

impl<R: Rule> Group<R> {
    /// A group of parameters, each with the name by which its state is kept.
    pub fn new(params: Vec<(String, Var)>, rule: R) -> Self {
        Self { params, rule, schedules: Vec::new() }
    }

    /// Lets a hyperparameter of the rule, the learning rate or any other number, follow a schedule over the optimizer's
    /// steps. A second schedule for the same key replaces the first.
    ///
    /// # Errors
    /// The rule has no such hyperparameter, or the schedule's first value is out of its range.
    pub fn schedule(mut self, key: &str, schedule: Schedule) -> Result<Self> {
        self.rule.set(key, schedule.at(0).into())?;
        schedule.warn_of_one_update();
        self.schedules.retain(|(other, _)| other != key);
        self.schedules.push((key.to_string(), schedule));
        Ok(self)
    }
}

/// The variables of a `VarMap` that can be optimized (those of floating point), sorted by name. A `VarMap` itself
/// iterates in another order every run.
pub fn named_params(varmap: &VarMap) -> Vec<(String, Var)> {
    let data = varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let floats = data.iter().filter(|(_, var)| var.dtype().is_float());
    let mut params: Vec<(String, Var)> = floats.map(|(name, var)| (name.clone(), var.clone())).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    params
}

/// Two groups of the same rule: tensors of two or more dimensions with its weight decay, and the others (biases, the
/// weights of norms) with none.
///
/// ```
/// # use candle_core::{DType, Device, Var};
/// # use optim::{AdamW, Rule, exclude_from_decay, rules};
/// # let var = |shape: &[usize]| Var::zeros(shape, DType::F32, &Device::Cpu);
/// let params = vec![("linear.bias".to_string(), var(&[4])?), ("linear.weight".to_string(), var(&[4, 3])?)];
/// let groups = exclude_from_decay(params, &rules::AdamW { weight_decay: 0.1, ..Default::default() });
/// let optimizer = AdamW::from_groups(groups.into())?;
/// assert_eq!(optimizer.group_params(0).weight_decay, 0.1); // linear.weight
/// assert_eq!(optimizer.group_params(1).weight_decay, 0.0); // linear.bias
/// # Ok::<(), optim::Error>(())
/// ```
pub fn exclude_from_decay<R: Rule + Clone>(params: Vec<(String, Var)>, rule: &R) -> [Group<R>; 2] {
    let (decayed, others) = params.into_iter().partition(|(_, var)| var.rank() >= 2);
    let mut without_decay = rule.clone();
    // A rule on matrices has two.
    let decays = rule.hyperparameters().into_iter().filter(|own| own.name.ends_with("weight_decay"));
    decays.for_each(|own| without_decay.set_field(own.name, 0.0.into()));
    [Group::new(decayed, rule.clone()), Group::new(others, without_decay)]
}
