//! What `--list` prints.

use crate::{Comparison, data::Dataset, experiment, models, optimizer};

/// The data sets, models, optimizers and schedules that options can name, with their defaults.
pub fn list(comparison: &Comparison) -> String {
    let mut text = String::from("Data sets (--dataset)\n");
    for dataset in Dataset::ALL {
        let spec = dataset.spec();
        let defaults = experiment::defaults(dataset);
        text += &format!(
            "  {:<14} {}\n  {:<14} default: --model {} --epochs {} --batch-size {}\n",
            spec.name, spec.doc, "", spec.default_model, defaults.epochs, defaults.batch_size
        );
    }
    text += "\nModels (--model)\n";
    for model in models::all() {
        text += &format!("  {:<14} {}\n", model.name, model.doc);
    }
    text += &optimizer::list();
    text += &format!("\nOptimizers of {} without --opt\n", comparison.name);
    for optimizer in comparison.optimizers {
        text += &format!("  --opt {optimizer}\n");
    }
    text
}
