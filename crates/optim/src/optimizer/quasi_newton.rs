//! A step of L-BFGS: it evaluates the loss as often as it needs, on flat vectors of all parameters.

use super::displacement::Displacement;
use super::fused::FusedOptimizer;
use super::lbfgs::{Memory, dot, largest, number};
use super::line_search::{Point, strong_wolfe};
use super::parameter::Parameter;
use crate::backend::tensors::{allocate, to_dtype};
use crate::error::{Error, Result};
use crate::rule::contract::{QuasiNewton, Rule};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// Takes parameters back when it is dropped, also while a panic of a closure unwinds.
struct TakeBack(Option<Displacement>);

impl Drop for TakeBack {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(Displacement::undo) {
            tracing::error!("lbfgs: the parameters could not be restored: {error}");
        }
    }
}

/// Parameters as one vector.
struct Flat {
    vars: Vec<Var>,
    /// f64 if one of them is, else f32.
    dtype: DType,
}

impl Flat {
    fn vector(&self, tensors: impl Iterator<Item = candle_core::Result<Tensor>>) -> candle_core::Result<Tensor> {
        let all = tensors.map(|t| to_dtype(&t?.detach().flatten_all()?, self.dtype));
        let all = all.collect::<candle_core::Result<Vec<_>>>()?;
        allocate(|| Tensor::cat(&all, 0))
    }

    /// Writes the parameters.
    fn set(&self, vector: &Tensor) -> candle_core::Result<()> {
        let mut at = 0;
        for var in self.vars.iter().filter(|var| var.elem_count() > 0) {
            let values = vector.narrow(0, at, var.elem_count())?.reshape(var.shape())?;
            var.set(&to_dtype(&values, var.dtype())?)?;
            at += var.elem_count();
        }
        Ok(())
    }
}

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// A step of L-BFGS. Everything is as before where it fails.
    pub(super) fn quasi_newton_step(
        &mut self,
        settings: QuasiNewton,
        mut evaluate: impl FnMut(usize) -> candle_core::Result<(Tensor, GradStore)>,
    ) -> Result<Tensor> {
        let rules = self.scheduled_rules()?;
        let settings = rules.iter().find_map(Rule::quasi_newton).unwrap_or(settings);
        let sign = if rules.iter().any(|rule| rule.options().maximize) { -1.0 } else { 1.0 };
        self.check_quasi_newton(&rules)?;
        let flat = self.flat_parameters()?;
        let has_grad: Vec<bool> = self.all_params().map(|parameter| !parameter.frozen).collect();

        let mut evaluated = 0;
        let mut at = |optimizer: &Self, place: f64, direction: Option<&Tensor>| -> Result<(Tensor, Point)> {
            let (loss, grads) = evaluate(evaluated)?;
            evaluated += 1;
            let grads = optimizer.stored_gradients(&grads)?;
            optimizer.check_gradients(&grads)?;
            let active = optimizer.all_params().zip(grads).filter(|(parameter, _)| !parameter.frozen);
            let grad = flat.vector(active.map(|(p, grad)| grad.map_or_else(|| p.var.zeros_like(), Ok)))?;
            let grad = if sign < 0.0 { grad.neg()? } else { grad };
            let slope = direction.map_or(Ok(0.0), |direction| dot(&grad, direction))?;
            let value = sign * number(&loss)?;
            Ok((loss.detach(), Point { at: place, loss: value, grad, slope }))
        };
        let (first, mut now) = at(self, 0.0, None)?;
        let planned = self.plan_averages(&has_grad)?;
        let mut take_back = TakeBack(Some(Displacement::before(flat.vars.clone())?));
        let mut memory = self.memory.clone();
        if memory.latest.as_ref().is_some_and(|(direction, _)| direction.shape() != now.grad.shape()) {
            tracing::warn!("lbfgs starts anew: other parameters are frozen than before");
            memory = Memory::default();
        }
        let mut x = flat.vector(flat.vars.iter().map(|var| Ok(var.as_tensor().clone())))?;
        let (mut evaluations, mut iterations) = (1, 0);
        while iterations < settings.max_iter && (iterations > 0 || largest(&now.grad)? > settings.tolerance_grad) {
            iterations += 1;
            let direction = memory.direction(&now.grad, settings.history_size)?;
            memory.latest = Some((direction.clone(), now.grad.clone()));
            memory.iterations += 1;
            let is_first = memory.iterations == 1;
            let norm = if is_first { number(&now.grad.abs()?.sum_all()?)? } else { 1.0 };
            memory.length = if is_first { (1.0 / norm).min(1.0) } else { 1.0 } * settings.lr;
            let before = now.loss;
            now.slope = dot(&now.grad, &direction)?;
            if now.slope > -settings.tolerance_change {
                break;
            }
            let moved = |length: f64| -> candle_core::Result<Tensor> { &x + (&direction * length)? };
            if settings.strong_wolfe {
                let size = largest(&direction)?;
                now.at = 0.0;
                let most = settings.max_eval.saturating_sub(evaluations);
                let (found, count) = strong_wolfe(&now, memory.length, size, most, |length| -> Result<Point> {
                    flat.set(&moved(length)?)?;
                    Ok(at(self, length, Some(&direction))?.1)
                })?;
                memory.length = found.at;
                x = moved(found.at)?;
                flat.set(&x)?;
                now = found;
                evaluations += count;
            } else {
                x = moved(memory.length)?;
                flat.set(&x)?;
                if iterations == settings.max_iter {
                    break;
                }
                now = at(self, 0.0, None)?.1;
                evaluations += 1;
            }
            let is_over = evaluations >= settings.max_eval
                || largest(&now.grad)? <= settings.tolerance_grad
                || memory.length.abs() * largest(&direction)? <= settings.tolerance_change
                || (now.loss - before).abs() < settings.tolerance_change;
            if is_over {
                break;
            }
        }
        take_back.0 = None;
        self.memory = memory;
        for (parameter, has_grad) in self.all_params_mut().zip(has_grad) {
            parameter.updates += u64::from(has_grad);
        }
        self.groups.iter_mut().zip(rules).for_each(|(group, rule)| group.rule = rule);
        self.step += 1;
        self.run_averages(planned)?;
        Ok(first)
    }

    /// What does not go with L-BFGS.
    fn check_quasi_newton(&self, rules: &[R]) -> Result<()> {
        let options = rules.iter().map(Rule::options);
        let problem = if rules.len() != 1 {
            "lbfgs: all parameters are to be in one group"
        } else if self.clip.is_some() {
            "lbfgs: clipping would bend its line; use set_clip(None)"
        } else if options.into_iter().any(|options| options.cautious) {
            "lbfgs: cautious does not go with it"
        } else {
            return Ok(());
        };
        Err(Error::WrongState(problem))
    }

    fn flat_parameters(&self) -> Result<Flat> {
        let active: Vec<&Parameter> = self.all_params().filter(|parameter| !parameter.frozen).collect();
        if active.iter().all(|parameter| parameter.var.elem_count() == 0) {
            return Err(self.no_gradient());
        }
        let mut dtype = DType::F32;
        for Parameter { name, var, .. } in &active {
            match var.dtype() {
                DType::F32 => {}
                DType::F64 => dtype = DType::F64,
                other => {
                    let problem = format!("its type is {other:?}, but lbfgs is for f32 and f64");
                    return Err(Error::UnsuitableParameter { name: name.clone(), problem });
                }
            }
        }
        Ok(Flat { vars: active.iter().map(|parameter| parameter.var.clone()).collect(), dtype })
    }
}
