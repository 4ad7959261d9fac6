//! SAM's two steps: to where the second gradient is taken, and back with the base rule's step.

use super::displacement::Displacement;
use super::fused::FusedOptimizer;
use super::phase::Call;
use crate::backend::cpu::loops::Term;
use crate::backend::step;
use crate::backend::update::Addition;
use crate::error::Result;
use crate::rule::contract::Rule;
use candle_core::Tensor;
use candle_core::backprop::GradStore;

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// Evaluates the loss as often as the rule needs it and makes a step: once, or twice for SAM. The closure gets the
    /// number of the evaluation, from 0; batch-norm statistics should move in number 0 only, and all must use the same
    /// batch (and dropout mask). Returns the loss of evaluation 0.
    ///
    /// For [`Sophia`](crate::rules::Sophia) number 1, in the first of each `update_period` steps, is to be the loss of labels that are
    /// drawn from the model. [`Lbfgs`](crate::rules::Lbfgs) evaluates the loss up to `max_eval` times.
    ///
    /// # Errors
    /// Those of the closure; as [`Optimizer::step`](candle_nn::Optimizer::step). Parameters and state are then as before the
    /// call, also where the closure panics.
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
        self.check(Call::StepWith)?;
        if let Some(settings) = self.quasi_newton() {
            return self.quasi_newton_step(settings, evaluate);
        }
        let (first, grads) = evaluate(0)?;
        let first = first.detach();
        if self.takes_curvature()? {
            let grads = self.stored_gradients(&grads)?;
            self.check_gradients(&grads)?;
            let (_, second) = evaluate(1)?;
            let second = self.stored_gradients(&second)?;
            self.update_with_curvature(grads, second)?;
            return Ok(first);
        }
        if self.groups.iter().all(|g| g.rule.sharpness().is_none()) {
            let grads = self.stored_gradients(&grads)?;
            self.update(grads, 1.0)?;
            return Ok(first);
        }
        self.first_step(&grads)?;
        drop(grads);
        /// Restores the parameters, also while a panic of the closure unwinds.
        struct Cancel<'a, R: Rule + Clone>(&'a mut FusedOptimizer<R>);
        impl<R: Rule + Clone> Drop for Cancel<'_, R> {
            fn drop(&mut self) {
                if let Err(error) = self.0.cancel_first_step() {
                    tracing::error!("sam: the parameters could not be restored: {error}");
                }
            }
        }
        let optimizer = Cancel(self);
        let (_, grads) = evaluate(1)?;
        optimizer.0.second_step(&grads)?;
        Ok(first)
    }

    /// SAM's first step: moves the parameters to where the second gradient is to be taken. Clipping does not apply to it: its
    /// length is `rho`, whatever the gradient's norm.
    ///
    /// # Errors
    /// No group's rule is SAM; the parameters are there already; gradients are accumulated; as
    /// [`Optimizer::step`](candle_nn::Optimizer::step). Everything is then as before.
    pub fn first_step(&mut self, grads: &GradStore) -> Result<()> {
        self.check(Call::FirstStep)?;
        let grads = self.stored_gradients(grads)?;
        self.perturb(grads, 1)
    }

    /// SAM's [first step](Self::first_step) with the mean of the accumulated gradients.
    ///
    /// # Errors
    /// Nothing was accumulated; as [`first_step`](Self::first_step).
    pub fn first_step_accumulated(&mut self) -> Result<()> {
        self.check(Call::FirstStepAccumulated)?;
        let grads = self.accumulated_gradients()?;
        self.perturb(grads, self.accumulated.count)?;
        self.accumulated.clear();
        Ok(())
    }

    /// Moves the parameters by the mean of `count` gradients, whose sums are given.
    fn perturb(&mut self, grads: Vec<Option<Tensor>>, count: u64) -> Result<()> {
        let rules = self.scheduled_rules()?;
        let mut grads = grads.into_iter();
        let mut moved = Vec::new();
        for (group, rule) in self.groups.iter().zip(&rules) {
            for parameter in &group.params {
                if let (Some(grad), Some(sharpness)) = (grads.next().flatten(), rule.sharpness()) {
                    // Up the loss, which is minus what is maximized.
                    let sign = if rule.options().maximize { -1.0 } else { 1.0 };
                    moved.push((&parameter.var, grad, sharpness, sign));
                }
            }
        }
        if moved.is_empty() {
            return Err(self.no_gradient());
        }
        let weighted = moved.iter().map(|(var, grad, s, _)| (grad, s.adaptive.then_some(var.as_tensor())));
        let norm = step::global_norm(&mut self.tables, &weighted.collect::<Vec<_>>(), 1.0, f64::INFINITY, 2)?;
        let vars: Vec<_> = moved.iter().map(|(var, ..)| (*var).clone()).collect();
        let mut perturbation = Displacement::before(vars)?;
        // `g / (norm(g) + 1e-12)` of the mean, with sums above and below.
        let epsilon = 1e-12 * count as f64;
        let additions = moved.into_iter().map(|(to, addend, sharpness, sign)| Addition {
            to: to.as_tensor().clone(),
            addend,
            term: if sharpness.adaptive { Term::Adaptive } else { Term::Scaled },
            scale: sign * sharpness.rho,
            by_norm: Some((norm.clone(), epsilon)),
        });
        let moved = step::add(&mut self.tables, additions.collect()).and_then(|()| perturbation.moved());
        if let Err(error) = moved {
            perturbation.undo()?;
            return Err(error.into());
        }
        self.perturbation = Some(perturbation);
        Ok(())
    }

    /// SAM's second step: restores the parameters to their exact bits and makes the base rule's step with the gradients
    /// taken in between. An element that was written since the first step, as by loading a model, keeps what was written.
    ///
    /// # Errors
    /// [`first_step`](Self::first_step) did not come before; gradients are accumulated; as
    /// [`Optimizer::step`](candle_nn::Optimizer::step). Everything is then as before: the parameters are still where the first
    /// step moved them.
    pub fn second_step(&mut self, grads: &GradStore) -> Result<()> {
        self.check(Call::SecondStep)?;
        let grads = self.stored_gradients(grads)?;
        self.update(grads, 1.0)
    }

    /// Takes SAM's first step back, if it was made: restores the parameters to their exact bits, and drops gradients that were
    /// accumulated since then. An element that was written meanwhile keeps what was written.
    ///
    /// # Errors
    /// The device fails.
    pub fn cancel_first_step(&mut self) -> Result<()> {
        if let Some(perturbation) = &self.perturbation {
            perturbation.restored()?.write()?;
            self.perturbation = None;
            self.accumulated.clear();
        }
        Ok(())
    }
}
