//! The optimizer as candle knows optimizers.

use super::fused::{Active, FusedOptimizer};
use super::groups::Group;
use super::phase::Call;
use crate::rule::contract::Rule;
use candle_core::Var;
use candle_core::backprop::GradStore;
use candle_nn::Optimizer;

impl<R: Rule + Clone> Optimizer for FusedOptimizer<R> {
    type Config = R;

    /// An optimizer of variables without names. Variables that are not of floating point are left out, as in candle.
    ///
    /// # Errors
    /// No variable, which candle allows: nothing would ever move. To add them later, begin with
    /// [`from_groups`](FusedOptimizer::from_groups) and an empty group. Else as there.
    fn new(vars: Vec<Var>, config: R) -> candle_core::Result<Self> {
        let floats = vars.into_iter().filter(|var| var.dtype().is_float());
        let params = floats.enumerate().map(|(i, var)| (i.to_string(), var)).collect();
        let mut optimizer = Self::from_groups(vec![Group::new(params, config)])?.with_parameters()?;
        optimizer.has_names = false;
        Ok(optimizer)
    }

    /// One update of every parameter that has a gradient. After SAM's [`FusedOptimizer::first_step`] this is
    /// [`FusedOptimizer::second_step`], so `backward_step` completes the update.
    ///
    /// # Errors
    /// No parameter has a gradient; a gradient of another shape or device than its parameter; a hyperparameter out of
    /// range; SAM without its first step, since it needs two gradients ([`FusedOptimizer::step_with`]); gradients are accumulated, which
    /// this would leave for a later step; the device has no memory left. Parameters, state and counts are then as before. (Only
    /// where a GPU fails to start a kernel that is loaded may a part of the parameters have been updated.)
    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        self.check(Call::Step)?;
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
