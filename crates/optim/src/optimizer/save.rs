//! How an optimizer's state is taken out of it, and put in.

use super::average::KINDS;
use super::fused::FusedOptimizer;
use super::lbfgs::Memory;
use super::parameter::{MatrixState, Member, Parameter};
use super::phase::Call;
use super::state_dict::{StateDict, mismatch};
use crate::backend::kept::Kept;
use crate::backend::kernel::Kernel;
use crate::backend::state::State;
use crate::backend::tensors::{copy, read_back};
use crate::error::{Error, Result};
use crate::rule::contract::Rule;
use crate::rule::matrix::{MatrixRule, STEP};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::{BTreeMap, HashSet};

/// The version of the layout that [`StateDict`] describes.
const VERSION: &str = "1";
const MASTER: &str = "master";
const UPDATES: &str = "step";
/// Of all parameters together: the factors of sums over all of them.
const KEPT: &str = "all";
const AVERAGE: &str = "average";
const SLOW: &str = "slow";
/// How often the average took the parameters; the kind of average is under its slot's name.
const AVERAGED: &str = "averaged";

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// The names of the rules in use, sorted: what a saved state is checked against.
    fn rules(&self) -> String {
        let mut heads: Vec<String> = self.groups.iter().map(|g| g.rule.qualified_name()).collect();
        heads.sort();
        heads.dedup();
        heads.join(" ")
    }

    fn check_between_steps(&self) -> Result<()> {
        if !self.has_names {
            return Err(Error::Unnamed);
        }
        self.check(Call::SaveOrLoad)
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// The optimizer was made by candle's `new`, which has no names; it is between the two steps of SAM, or between
    /// [`eval`](Self::eval) and [`train`](Self::train), or holds accumulated gradients.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.check_between_steps()?;
        let mut tensors = BTreeMap::new();
        for (rule, parameter) in self.groups.iter().flat_map(|g| g.params.iter().map(|p| (&g.rule, p))) {
            let count = Tensor::new(parameter.updates as i64, &Device::Cpu)?;
            tensors.insert(format!("{}.{UPDATES}", parameter.name), count);
            for ((number, _), value) in rule.numbers().iter().zip(&parameter.numbers) {
                tensors.insert(format!("{}.{number}", parameter.name), Tensor::new(*value, &Device::Cpu)?);
            }
            if let Some(kernel) = parameter.kernel {
                let (slots, master) = parameter.state.tensors(&parameter.var)?;
                let master = master.into_iter().map(|master| (MASTER, master));
                for (slot, values) in kernel.slots.iter().copied().zip(slots).chain(master) {
                    tensors.insert(format!("{}.{slot}", parameter.name), values);
                }
            }
            for (slot, values) in [(AVERAGE, &parameter.average), (SLOW, &parameter.slow)] {
                if let Some(values) = values {
                    tensors.insert(format!("{}.{slot}", parameter.name), read_back(&copy(values)?)?);
                }
            }
        }
        for (rule, parameter) in self.groups.iter().flat_map(|g| g.params.iter().map(|p| (&g.rule, p))) {
            if let (Some(own), Some(matrix)) = (&parameter.matrix, parameter.as_matrix(rule)) {
                let (slots, _) = own.slots.tensors(&parameter.var)?;
                let (rows, columns) = parameter.rows_and_columns();
                let names = matrix.state(rows, columns).into_iter().map(|(name, _)| name);
                let further = own.further.iter().map(|member| member.tensor()?.copy()?.to_device(&Device::Cpu));
                let further = names.zip(further.collect::<candle_core::Result<Vec<_>>>()?);
                for (name, values) in own.kernel.slots.iter().copied().zip(slots).chain(further) {
                    tensors.insert(format!("{}.{name}", parameter.name), values);
                }
            }
        }
        for kernel in self.kernels_with_kept_factors() {
            if let Some(factors) = self.kept.read(kernel)? {
                tensors.insert(format!("{KEPT}.{}", kernel.name), Tensor::new(factors, &Device::Cpu)?);
            }
        }
        self.memory.save(&mut tensors)?;
        let average = self.averages.kind.map(|kind| (AVERAGE.to_string(), kind.to_string()));
        let averaged = average.is_some().then(|| (AVERAGED.to_string(), self.averages.count.to_string()));
        let metadata = [
            ("version".to_string(), VERSION.to_string()),
            (UPDATES.to_string(), self.step.to_string()),
            ("rules".to_string(), self.rules()),
        ];
        Ok(StateDict { tensors, metadata: metadata.into_iter().chain(average).chain(averaged).collect() })
    }

    /// Takes a state over, so that the next step has the bits that it would have had in the optimizer that saved it.
    ///
    /// Hyperparameters may differ from those of the optimizer that saved it, as in PyTorch: a slot that they need and the state
    /// does not have (momentum, or centring, that is switched on) starts in the next step; one that they do not need any more is
    /// dropped there, with a warning. A warning also says where master copies are asked for and the state has none: they start
    /// from the rounded parameters. An average and Lookahead's slow weights are taken over in the same way.
    ///
    /// # Errors
    /// The state is of another version, rule or kind of average; a key is missing, unknown, or of another shape or type than the
    /// optimizer's, which are named. The optimizer is then as before.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.check_between_steps()?;
        let known = |key: &str| state.metadata.get(key).map_or("none", String::as_str);
        if known("version") != VERSION {
            return Err(mismatch(format!("its version is {}, but this program reads {VERSION}", known("version"))));
        }
        if known("rules") != self.rules() {
            return Err(mismatch(format!("it is of `{}`, but the optimizer is `{}`", known("rules"), self.rules())));
        }
        let step = state.number(UPDATES)?;
        let kind = match (state.metadata.get(AVERAGE).map(String::as_str), self.averages.average) {
            (None, _) => None,
            (Some(found), Some(own)) if found != own.kind() => {
                return Err(mismatch(format!(
                    "its average is of the kind `{found}`, but the optimizer's is `{}`",
                    own.kind()
                )));
            }
            (Some(found), _) => match KINDS.iter().find(|kind| **kind == found) {
                Some(kind) => Some(*kind),
                None => {
                    return Err(mismatch(format!(
                        "its average is of the kind `{found}`: known are {}",
                        KINDS.join(", ")
                    )));
                }
            },
        };
        let count = if kind.is_some() { state.number(AVERAGED)? } else { 0 };
        let (mut used, mut without_master, mut without_average, mut without_slow) = (0, 0, 0, 0);
        let mut loaded = Vec::new();
        for group in &self.groups {
            for parameter in &group.params {
                let is_matrix = parameter.as_matrix(&group.rule).is_some();
                let kernel = if is_matrix { STEP } else { state.kernel(&parameter.name, &group.rule) };
                let key = format!("{}.{UPDATES}", parameter.name);
                let updates: i64 = state.tensor(&key, &Shape::from(()), DType::I64)?.to_scalar()?;
                let updates = u64::try_from(updates).map_err(|_| mismatch(format!("`{key}` is {updates}")))?;
                used += 1;
                let mut own = State::new(&parameter.var);
                let (mut numbers, mut matrix) = (Vec::new(), None);
                if let Some(of_rule) = parameter.as_matrix(&group.rule).filter(|_| updates > 0) {
                    let (kept, count) = state.matrix(parameter, of_rule)?;
                    own = state.state(parameter, kernel)?;
                    used += count + usize::from(own.has_master());
                    without_master += usize::from(self.wants_master(parameter) && !own.has_master());
                    matrix = Some(kept);
                } else if updates > 0 {
                    for (number, _) in group.rule.numbers() {
                        let key = format!("{}.{number}", parameter.name);
                        numbers.push(state.tensor(&key, &Shape::from(()), DType::F64)?.to_scalar()?);
                        used += 1;
                    }
                    own = state.state(parameter, kernel)?;
                    used += kernel.slots.len() + usize::from(own.has_master());
                    without_master += usize::from(self.wants_master(parameter) && !own.has_master());
                }
                let average = state.beside(parameter, AVERAGE)?;
                if average.is_some() && kind.is_none() {
                    let key = format!("{}.{AVERAGE}", parameter.name);
                    return Err(mismatch(format!("`{key}` is there, but the metadata have no `{AVERAGE}`")));
                }
                let slow = state.beside(parameter, SLOW)?;
                used += usize::from(average.is_some()) + usize::from(slow.is_some());
                without_average += usize::from(average.is_none());
                without_slow += usize::from(slow.is_none());
                loaded.push((updates, (updates > 0).then_some(kernel), own, numbers, matrix, average, slow));
            }
        }
        let mut kept = Kept::default();
        for kernel in self.kernels_with_kept_factors() {
            let (key, count) = (format!("{KEPT}.{}", kernel.name), kernel.sums.factors);
            if let (Some(first), true) = (self.all_params().next(), state.tensors.contains_key(&key)) {
                let factors = state.tensor(&key, &Shape::from(count), DType::F64)?.to_vec1::<f64>()?;
                kept.load(first.var.device(), kernel, &factors)?;
                used += 1;
            }
        }
        let mut memory = Memory::default();
        if let (true, Some(first)) = (self.quasi_newton().is_some(), self.all_params().next()) {
            let count;
            (memory, count) = Memory::load(state, first.var.device())?;
            used += count;
        }
        if used != state.tensors.len() {
            let all = self.state_keys();
            let extra = state.tensors.keys().find(|key| !all.contains(*key));
            return Err(mismatch(match extra {
                Some(key) => format!("`{key}` is unknown: the optimizer has no such parameter or slot"),
                None => "a parameter that was never updated has slots".to_string(),
            }));
        }
        let params = self.groups.iter_mut().flat_map(|g| &mut g.params);
        for (parameter, (updates, kernel, own, numbers, matrix, average, slow)) in params.zip(loaded) {
            (parameter.updates, parameter.kernel, parameter.state) = (updates, kernel, own);
            (parameter.numbers, parameter.matrix) = (numbers, matrix);
            (parameter.average, parameter.slow) = (average, slow);
        }
        (self.kept, self.memory) = (kept, memory);
        self.step = step;
        (self.averages.kind, self.averages.count) = (kind, count);
        for (what, is_asked_for, missing) in [
            ("average", self.averages.average.is_some() && step > 0, without_average),
            ("slow weights", self.averages.lookahead.is_some(), without_slow),
        ] {
            if is_asked_for && missing > 0 {
                tracing::warn!(
                    "the saved state has no {what} of {missing} parameters: they start from the present values"
                );
            }
        }
        if without_master > 0 {
            tracing::warn!(
                "the saved state has no master copies of {without_master} parameters: they start from rounded values"
            );
        }
        Ok(())
    }

    /// The kernels whose sums go over all parameters, each once.
    fn kernels_with_kept_factors(&self) -> Vec<&'static Kernel> {
        let all = self.groups.iter().flat_map(|group| group.rule.kernels());
        let mut kernels: Vec<_> = all.filter(|kernel| kernel.keeps_factors()).collect();
        kernels.sort_by_key(|kernel| kernel.name);
        kernels.dedup_by_key(|kernel| kernel.name);
        kernels
    }

    /// Every key that a state of this optimizer may have.
    fn state_keys(&self) -> HashSet<String> {
        let kept = self.kernels_with_kept_factors().into_iter().map(|kernel| format!("{KEPT}.{}", kernel.name));
        let mut keys: HashSet<String> = kept.collect();
        for group in &self.groups {
            for parameter in &group.params {
                let slots = group.rule.kernels().into_iter().flat_map(|kernel| kernel.slots).copied();
                let (rows, columns) = parameter.rows_and_columns();
                let of_matrix = parameter.as_matrix(&group.rule).map(|matrix| {
                    let further = matrix.state(rows, columns).into_iter().map(|(name, _)| name);
                    matrix.kernel().slots.iter().copied().chain(further)
                });
                let numbers = group.rule.numbers().iter().map(|(number, _)| *number);
                let slots = slots
                    .chain([UPDATES, AVERAGE, SLOW])
                    .chain(numbers)
                    .chain(of_matrix.into_iter().flatten())
                    .chain(parameter.is_half().then_some(MASTER));
                keys.extend(slots.map(|slot| format!("{}.{slot}", parameter.name)));
            }
        }
        keys
    }
}

impl StateDict {
    /// The kernel whose slots a parameter's keys are: of those that the rule may have used, as its hyperparameters were when the
    /// state was saved; the present one where none fits.
    fn kernel(&self, name: &str, rule: &impl Rule) -> &'static Kernel {
        let has = |slot: &str| self.tensors.contains_key(&format!("{name}.{slot}"));
        let kernels = rule.kernels();
        let slots: HashSet<&str> = kernels.iter().flat_map(|kernel| kernel.slots).copied().filter(|s| has(s)).collect();
        let fits = |kernel: &&&'static Kernel| kernel.slots.iter().copied().collect::<HashSet<_>>() == slots;
        kernels.iter().find(fits).copied().unwrap_or_else(|| rule.kernel())
    }

    /// What is kept of a matrix, and how many tensors it is.
    fn matrix(&self, parameter: &Parameter, rule: &dyn MatrixRule) -> Result<(MatrixState, usize)> {
        let Parameter { name, var, .. } = parameter;
        let (dtype, (rows, columns)) = (parameter.compute_dtype(), parameter.rows_and_columns());
        let tensor = |name_of: &str, shape: &Shape| self.tensor(&format!("{name}.{name_of}"), shape, dtype).cloned();
        let kernel = rule.kernel();
        let slots = kernel.slots.iter().map(|slot| tensor(slot, var.shape())).collect::<Result<Vec<_>>>()?;
        let further = rule
            .state(rows, columns)
            .into_iter()
            .map(|(name, dims)| Ok(Member::alone(&tensor(name, &Shape::from(dims))?.to_device(var.device())?)?));
        let further = further.collect::<Result<Vec<_>>>()?;
        let count = slots.len() + further.len();
        Ok((MatrixState { kernel, slots: State::with(var, slots, None)?, further }, count))
    }

    /// What is kept beside the parameter under this name, where there is such.
    fn beside(&self, Parameter { name, var, .. }: &Parameter, slot: &str) -> Result<Option<Tensor>> {
        let key = format!("{name}.{slot}");
        if !self.tensors.contains_key(&key) {
            return Ok(None);
        }
        let dtype = if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        Ok(Some(copy(&self.tensor(&key, var.shape(), dtype)?.to_device(var.device())?)?.detach()))
    }

    fn state(&self, parameter: &Parameter, kernel: &Kernel) -> Result<State> {
        let Parameter { name, var, .. } = parameter;
        let dtype = if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let tensor = |slot: &str| self.tensor(&format!("{name}.{slot}"), var.shape(), dtype).cloned();
        let slots = kernel.slots.iter().map(|slot| tensor(slot)).collect::<Result<_>>()?;
        // A parameter in full precision has no master copy: the key is then one too many.
        let has_master = parameter.is_half() && self.tensors.contains_key(&format!("{name}.{MASTER}"));
        Ok(State::with(var, slots, has_master.then(|| tensor(MASTER)).transpose()?)?)
    }
}
