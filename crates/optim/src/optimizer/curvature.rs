//! The second gradient of a rule that takes one now and then: it moves the state, and no parameter.

use super::fused::FusedOptimizer;
use crate::backend::cpu::numbers::StepNumbers;
use crate::backend::device::tables::Tables;
use crate::backend::step;
use crate::backend::update::Update;
use crate::error::Result;
use crate::rule::contract::Rule;
use candle_core::Tensor;

/// Neither gradient nor parameter is scaled, clipped or moved.
const NUMBERS: StepNumbers<f64> = StepNumbers {
    lr: 0.0,
    weight_decay: 0.0,
    grad_scale: 1.0,
    clip_value: f64::INFINITY,
    smallest_state: 0.0,
    cautious: false,
    mask_scale: 1.0,
    cautious_decay: false,
};

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// Whether the step to come takes a second gradient.
    pub(super) fn takes_curvature(&self) -> Result<bool> {
        let rules = self.scheduled_rules()?;
        Ok(rules.iter().filter_map(Rule::curvature).any(|curvature| self.step.is_multiple_of(curvature.period)))
    }

    /// An update with the gradients, after one of the state with those of the second loss.
    pub(super) fn update_with_curvature(
        &mut self,
        grads: Vec<Option<Tensor>>,
        mut second: Vec<Option<Tensor>>,
    ) -> Result<()> {
        let rules = self.scheduled_rules()?;
        second.iter_mut().zip(&grads).filter(|(_, grad)| grad.is_none()).for_each(|(second, _)| *second = None);
        let has_grad: Vec<bool> = second.iter().map(Option::is_some).collect();
        // The state moves before all that can fail is done: so a copy does.
        let mut before = Vec::new();
        let done = self.fit(&rules, &has_grad, true, &mut before).and_then(|()| {
            let (mut updates, mut second) = (Vec::new(), second.into_iter());
            for (group, rule) in self.groups.iter_mut().zip(&rules) {
                let curvature = rule.curvature().filter(|curvature| self.step.is_multiple_of(curvature.period));
                for parameter in &mut group.params {
                    let (Some(grad), Some(curvature)) = (second.next().flatten(), &curvature) else { continue };
                    let (param, state, kernel) = (&parameter.var, &mut parameter.state, rule.kernel());
                    let (scalars, numbers, by_norm, noise) = (curvature.scalars.clone(), NUMBERS, false, None);
                    updates.push(Update { param, grad, state, kernel, scalars, numbers, by_norm, noise });
                }
            }
            step::step(&mut Tables::default(), &mut self.kept, updates, None, || Ok(()))?;
            self.update(grads, 1.0)
        });
        if done.is_err() {
            self.undo_fit(before);
        }
        done
    }
}
