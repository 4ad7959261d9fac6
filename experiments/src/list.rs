//! What `--list` prints.

use crate::{
    Comparison,
    data::Dataset,
    experiment::{self, Length},
    models, optimizer,
};
use optim::recipes;

/// The data sets, models, optimizers and schedules that options can name, with their defaults.
pub fn list(comparison: &Comparison) -> String {
    let mut text = String::from("Data sets (--dataset)\n");
    for dataset in Dataset::ALL {
        let defaults = experiment::defaults(dataset);
        let length = match defaults.length {
            Length::Epochs(epochs) => format!("--epochs {epochs}"),
            Length::Steps(steps) => format!("--steps {steps}"),
        };
        text += &format!(
            "  {:<14} {}\n  {:<14} default: --model {} {length} --batch-size {}\n",
            dataset.to_string(),
            dataset.spec().doc,
            "",
            dataset.spec().default_model,
            defaults.batch_size
        );
    }
    text += "\nModels (--model NAME:KEY=VALUE,..)\n";
    for model in models::all() {
        text += &format!("  {:<14} {}\n", model.name, model.doc);
        for key in model.keys {
            let default = format!("{}={}", key.name, key.default);
            text += &format!("      {default:<22} {}. {}\n", key.allowed, key.doc);
        }
    }
    text += &optimizer::list();
    text += "\nRecipes (--recipe)\n";
    for recipe in recipes::all(1) {
        let schedule = if recipe.name == "vision" {
            format!("cosine over {} epochs", recipes::VISION_EPOCHS)
        } else {
            recipe.schedule.to_string()
        };
        let rule: &dyn optim::Rule = &recipe.rule;
        text += &format!("  {:<14} {}\n  {:<14} {}; {schedule}\n", recipe.name, recipe.doc, "", rule.text());
    }
    text += &format!("\n{} without options\n", comparison.name);
    text += &format!("  --dataset {}\n", comparison.dataset);
    if let Some(model) = comparison.model {
        text += &format!("  --model {model}\n");
    }
    for optimizer in comparison.optimizers {
        text += &format!("  --opt {optimizer}\n");
    }
    for schedule in comparison.schedules {
        text += &format!("  --schedule {schedule}\n");
    }
    if let Some(norm) = comparison.norm {
        text += &format!("  --norm {norm}\n");
    }
    if !comparison.peaks.is_empty() {
        let peaks: Vec<String> = comparison.peaks.iter().map(|peak| format!("{peak:?}")).collect();
        text += &format!("  --lr {}\n", peaks.join(","));
    }
    if let Some(steps) = comparison.steps {
        text += &format!("  --steps {steps}\n");
    }
    text
}
