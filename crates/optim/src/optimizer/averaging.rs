//! How averages of the weights follow each step, and how the parameters hold them to be evaluated.

use super::average::{Average, Averages, Lookahead};
use super::displacement::Displacement;
use super::fused::FusedOptimizer;
use super::parameter::Parameter;
use super::phase::Call;
use crate::backend::cpu::loops::Term;
use crate::backend::device::tables::Tables;
use crate::backend::step::{PlannedAdditions, add, add_planned, plan_add};
use crate::backend::tensors::{copy, is_gpu, to_dtype};
use crate::backend::update::Addition;
use crate::error::Result;
use crate::rule::contract::Rule;
use candle_core::{DType, Tensor};

/// The averages' part of a step, which is run when the rest of it is done.
#[derive(Default)]
pub(super) struct Planned {
    /// By index of the parameter, with those that start in this step.
    averages: Vec<Option<Tensor>>,
    slow: Vec<Option<Tensor>>,
    /// Which parameters Lookahead moves.
    synchronised: Vec<usize>,
    /// Of Lookahead, where masters are the host's and its moves are made when the step is done.
    alpha_on_host: Option<f64>,
    moves: Vec<PlannedAdditions>,
    /// Whether the average takes the parameters.
    takes: bool,
}

/// A copy in the type that averages are kept in.
fn start(values: &Tensor) -> candle_core::Result<Tensor> {
    match values.dtype() {
        DType::F32 | DType::F64 => Ok(copy(values)?.detach()),
        _ => Ok(to_dtype(values, DType::F32)?.detach()),
    }
}

/// Moves `to` by `weight` of the way to `end`.
fn toward(to: &Tensor, end: &Tensor, weight: f64) -> Addition {
    Addition { to: to.clone(), addend: end.clone(), term: Term::Toward, scale: weight, by_norm: None }
}

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// Keeps an average of the parameters from the next step on, or drops it with `None`. Of another kind than before, it starts
    /// anew; other numbers of the same kind take effect in the next step. [`eval`](Self::eval) writes it into the parameters.
    ///
    /// It is saved with the state: `<parameter>.average`.
    ///
    /// # Errors
    /// A number out of range; between [`eval`](Self::eval) and [`train`](Self::train).
    pub fn set_average(&mut self, average: Option<Average>) -> Result<()> {
        self.check(Call::SetAverage)?;
        self.averages.average = average.map(Average::check).transpose()?;
        if self.averages.average.map(Average::kind) != self.averages.kind {
            self.drop_average();
        }
        Ok(())
    }

    fn drop_average(&mut self) {
        self.all_params_mut().for_each(|parameter| parameter.average = None);
        (self.averages.kind, self.averages.count) = (None, 0);
    }

    /// Goes on with [`Lookahead`], or drops its slow weights with `None`. They are saved with the state: `<parameter>.slow`.
    ///
    /// # Errors
    /// A number out of range; between [`eval`](Self::eval) and [`train`](Self::train).
    pub fn set_lookahead(&mut self, lookahead: Option<Lookahead>) -> Result<()> {
        self.check(Call::SetAverage)?;
        self.averages.lookahead = lookahead.map(Lookahead::check).transpose()?;
        if lookahead.is_none() {
            self.all_params_mut().for_each(|parameter| parameter.slow = None);
        }
        Ok(())
    }

    /// Writes into the parameters what is to be evaluated, until [`train`](Self::train): the average, where one is kept, else
    /// the point that the rule says, as Schedule-Free does. Averages are rounded to the parameters' type. Where there is neither, the parameters stay as
    /// they are. A second call changes nothing.
    ///
    /// In between, calls that would use or move the parameters are errors.
    ///
    /// # Errors
    /// Gradients are accumulated, or it is between the two steps of SAM; the device has no memory left. Everything is then as
    /// before.
    pub fn eval(&mut self) -> Result<()> {
        if self.evaluated.is_some() {
            return Ok(());
        }
        self.check(Call::Eval)?;
        let mut values = Vec::new();
        for group in &self.groups {
            let point = group.rule.evaluation_point();
            for parameter in &group.params {
                let value = match (&parameter.average, point) {
                    (Some(average), _) => average.clone(),
                    (None, Some(point)) => match parameter.evaluated_at(point)? {
                        Some(value) => value,
                        None => continue,
                    },
                    (None, None) => continue,
                };
                let dtype = parameter.var.dtype();
                let value = if value.dtype() == dtype { copy(&value)? } else { to_dtype(&value, dtype)? };
                values.push((parameter.var.clone(), value));
            }
        }
        self.evaluated = Some(Displacement::to(values)?);
        Ok(())
    }

    /// Restores the parameters after [`eval`](Self::eval), to their exact bits. An element that was written since then, as by
    /// loading a model, keeps what was written. Without [`eval`](Self::eval) before it, nothing changes.
    ///
    /// # Errors
    /// The device fails.
    pub fn train(&mut self) -> Result<()> {
        if let Some(evaluated) = &self.evaluated {
            evaluated.restored()?.write()?;
            self.evaluated = None;
        }
        Ok(())
    }

    /// Calls `evaluate` between [`eval`](Self::eval) and [`train`](Self::train); the parameters are restored also where it fails
    /// or panics. After a call of `eval` they stay as that wrote them.
    ///
    /// # Errors
    /// Those of the closure, of `eval` and of `train`.
    pub fn evaluate_with<T>(&mut self, evaluate: impl FnOnce() -> candle_core::Result<T>) -> Result<T> {
        /// Restores the parameters, also while a panic of the closure unwinds.
        struct Restore<'a, R: Rule + Clone>(&'a mut FusedOptimizer<R>);
        impl<R: Rule + Clone> Drop for Restore<'_, R> {
            fn drop(&mut self) {
                if let Err(error) = self.0.train() {
                    tracing::error!("evaluate_with: the parameters could not be restored: {error}");
                }
            }
        }
        if self.evaluated.is_some() {
            return Ok(evaluate()?);
        }
        self.eval()?;
        let optimizer = Restore(self);
        let result = evaluate()?;
        optimizer.0.train()?;
        Ok(result)
    }

    /// Plans what the averages do after the step to come, with all memory that it needs. Nothing has changed where it fails.
    pub(super) fn plan_averages(&mut self, has_grad: &[bool]) -> Result<Planned> {
        let step = self.step + 1;
        let Averages { average, lookahead, count, .. } = self.averages;
        if average.is_none() && lookahead.is_none() {
            return Ok(Planned::default());
        }
        let average = average.filter(|average| average.takes(step));
        let mut planned = Planned { takes: average.is_some(), ..Planned::default() };
        for parameter in self.all_params() {
            planned.averages.push(match &parameter.average {
                None if average.is_some() => Some(start(&parameter.var)?),
                known => known.clone(),
            });
            planned.slow.push(match &parameter.slow {
                None if lookahead.is_some() => Some(start(&parameter.var)?),
                known => known.clone(),
            });
        }
        if let Some(Lookahead { alpha, .. }) = lookahead.filter(|lookahead| step.is_multiple_of(lookahead.every)) {
            let moved = has_grad.iter().enumerate().filter(|(_, has_grad)| **has_grad);
            planned.synchronised = moved.map(|(index, _)| index).collect();
            if self.all_params().any(|parameter| is_gpu(parameter.var.device())) {
                let moves = self.lookahead_moves(&planned, alpha)?;
                for (tables, all) in self.averages.tables.iter_mut().zip(moves) {
                    planned.moves.push(plan_add(tables, all)?);
                }
            } else {
                planned.alpha_on_host = Some(alpha);
            }
        }
        if let Some(average) = average {
            let weight = average.weight(count + 1);
            let all = self.all_params().zip(&planned.averages).filter(|(parameter, _)| parameter.var.elem_count() > 0);
            let all = all.filter_map(|(parameter, to)| Some(toward(to.as_ref()?, &parameter.var, weight))).collect();
            let [.., tables] = &mut self.averages.tables;
            planned.moves.push(plan_add(tables, all)?);
        }
        Ok(planned)
    }

    /// Lookahead's three moves: of the slow weights, of the parameters back to them, and of their master copies.
    fn lookahead_moves(&self, planned: &Planned, alpha: f64) -> Result<[Vec<Addition>; 3]> {
        let [mut slow, mut back, mut masters] = [const { Vec::new() }; 3];
        let params: Vec<&Parameter> = self.all_params().collect();
        for index in &planned.synchronised {
            let Parameter { var, state, .. } = params[*index];
            let Some(to) = planned.slow[*index].as_ref().filter(|to| to.elem_count() > 0) else { continue };
            let master = state.master(var)?;
            slow.push(toward(to, master.as_ref().unwrap_or(var), alpha));
            back.push(toward(var, to, 1.0));
            masters.extend(master.map(|master| toward(&master, to, 1.0)));
        }
        Ok([slow, back, masters])
    }

    /// Runs what was planned, after the step.
    pub(super) fn run_averages(&mut self, planned: Planned) -> Result<()> {
        if let Some(alpha) = planned.alpha_on_host {
            for all in self.lookahead_moves(&planned, alpha)? {
                add(&mut Tables::default(), all)?;
            }
            let mut params: Vec<&mut Parameter> = self.all_params_mut().collect();
            for index in &planned.synchronised {
                if let Some(slow) = &planned.slow[*index] {
                    params[*index].state.set_master(slow)?;
                }
            }
        }
        planned.moves.iter().try_for_each(add_planned)?;
        for (parameter, (average, slow)) in self.all_params_mut().zip(planned.averages.into_iter().zip(planned.slow)) {
            (parameter.average, parameter.slow) = (average, slow);
        }
        if planned.takes {
            self.averages.count += 1;
            self.averages.kind = self.averages.average.map(Average::kind);
        }
        if self.averages.average.is_none() && self.averages.kind.is_some() {
            tracing::warn!("the average of the loaded state is dropped: set_average goes on with it");
            self.drop_average();
        }
        if self.averages.lookahead.is_none() && self.all_params().any(|parameter| parameter.slow.is_some()) {
            tracing::warn!("the slow weights of the loaded state are dropped: set_lookahead goes on with them");
            self.all_params_mut().for_each(|parameter| parameter.slow = None);
        }
        Ok(())
    }
}
