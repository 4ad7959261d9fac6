//! Known recipes: an optimizer's hyperparameters, a schedule and a length that are used together.
//!
//! ```
//! use optim::{Group, recipes};
//!
//! let recipe = recipes::llm().scaled(5_000)?;
//! assert_eq!(recipe.schedule.to_string(), "warmup_cosine:lr=0.0003,warmup=100,min_lr=0,steps=5000");
//! let group = Group::new(vec![], recipe.rule).schedule("lr", recipe.schedule)?;
//! # drop(group);
//! # Ok::<(), optim::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::rules::adamw::AdamW;
use crate::schedule::Schedule;
use crate::text::{same_name, suggestion};

/// Epochs of [`vision`].
pub const VISION_EPOCHS: u64 = 300;

/// Hyperparameters, schedule and length that are used together.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Its name, the function that makes it.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// The optimizer.
    pub rule: AdamW,
    /// The learning rate by update.
    pub schedule: Schedule,
    /// Updates of warmup in the schedule.
    pub warmup: u64,
    /// The whole length, in updates.
    pub steps: u64,
}

/// Training a vision model from scratch: AdamW with lr 1e-4, weight decay 0.05, betas 0.9 and 0.999; a cosine to 0 over
/// 300 epochs of `steps_per_epoch` updates.
pub fn vision(steps_per_epoch: u64) -> Recipe {
    let rule = AdamW { lr: 1e-4, weight_decay: 0.05, ..AdamW::default() };
    let steps = steps_per_epoch.max(1).saturating_mul(VISION_EPOCHS);
    let doc = "training a vision model from scratch, over 300 epochs";
    Recipe { name: "vision", doc, schedule: cosine(&rule, 0, steps), rule, warmup: 0, steps }
}

/// Pre-training a language model: AdamW with lr 3e-4, weight decay 0.1, betas 0.9 and 0.95; 2,000 updates of warmup, then
/// a cosine to 0, over 100,000 updates.
pub fn llm() -> Recipe {
    let rule = AdamW { lr: 3e-4, beta2: 0.95, weight_decay: 0.1, ..AdamW::default() };
    let doc = "pre-training a language model, over 100,000 updates";
    Recipe { name: "llm", doc, schedule: cosine(&rule, 2_000, 100_000), rule, warmup: 2_000, steps: 100_000 }
}

/// All recipes, for a run whose epochs have `steps_per_epoch` updates.
pub fn all(steps_per_epoch: u64) -> [Recipe; 2] {
    [vision(steps_per_epoch), llm()]
}

/// The recipe of this name.
///
/// # Errors
/// There is none; the message names the nearest one.
pub fn by_name(name: &str, steps_per_epoch: u64) -> Result<Recipe> {
    let recipes = all(steps_per_epoch);
    let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name).collect();
    let unknown =
        Error::UnknownRecipe { name: name.to_string(), suggestion: suggestion(name, &names), known: names.join(", ") };
    recipes.into_iter().find(|recipe| same_name(recipe.name, name)).ok_or(unknown)
}

impl Recipe {
    /// The same recipe for a run of `steps` updates: the warmup keeps its share of the whole, rounded up.
    ///
    /// # Errors
    /// `steps` is 0.
    pub fn scaled(self, steps: u64) -> Result<Self> {
        if steps == 0 {
            return Err(Error::ScheduleOutOfRange {
                schedule: "warmup_cosine",
                key: "steps",
                value: "0".to_string(),
                allowed: "a whole number from 1 to 2^64 - 1".to_string(),
            });
        }
        let share = u128::from(self.warmup) * u128::from(steps);
        let warmup = u64::try_from(share.div_ceil(u128::from(self.steps))).unwrap_or(steps).min(steps);
        Ok(Self { schedule: cosine(&self.rule, warmup, steps), warmup, steps, ..self })
    }
}

fn cosine(rule: &AdamW, warmup: u64, steps: u64) -> Schedule {
    let schedule = match warmup {
        0 => Schedule::cosine(rule.lr, 0.0, steps),
        _ => Schedule::warmup_cosine(rule.lr, warmup, 0.0, steps),
    };
    schedule.expect("a recipe's numbers are in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_have_their_published_numbers_and_keep_their_shape_when_scaled() {
        let vision = by_name("vision", 390).unwrap();
        assert_eq!(vision.schedule.to_string(), "cosine:lr=0.0001,min_lr=0,steps=117000");
        assert_eq!((vision.rule.weight_decay, vision.rule.beta1, vision.rule.beta2), (0.05, 0.9, 0.999));
        let llm = llm();
        assert_eq!((llm.rule.lr, llm.rule.weight_decay, llm.rule.beta1, llm.rule.beta2), (3e-4, 0.1, 0.9, 0.95));
        assert_eq!(llm.schedule.to_string(), "warmup_cosine:lr=0.0003,warmup=2000,min_lr=0,steps=100000");
        for steps in [1, 7, 50, 2_000, 1_000_000, u64::MAX] {
            let scaled = llm.clone().scaled(steps).unwrap();
            assert_eq!(scaled.steps, steps);
            assert!(
                scaled.warmup >= 1
                    && scaled.warmup <= steps.div_ceil(50)
                    && scaled.schedule.at(scaled.warmup - 1) == 3e-4
            );
            assert!(scaled.schedule.at(steps - 1) < 1e-12 || steps == 1);
        }
        assert_eq!(
            by_name("vison", 1).unwrap_err().to_string(),
            "unknown recipe `vison`: did you mean `vision`? (vision, llm)"
        );
        assert!(llm.scaled(0).is_err());
    }
}
