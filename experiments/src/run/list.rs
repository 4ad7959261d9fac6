//! What `--list` prints.

use super::{space::Space, usual_ranges::usual_of};
use crate::{
    config::{names::number, study::Study},
    problem::{
        data::{dataset::Dataset, spec::Length},
        models::registry,
    },
};
use optim::{recipes, rules, schedule};

/// The data sets, models, optimizers and schedules that options can name, with their defaults.
pub fn list(study: &Study) -> String {
    let mut text = String::from("Data sets (--dataset)\n");
    for dataset in Dataset::ALL {
        let defaults = dataset.spec().defaults;
        let length = match defaults.length {
            Length::Epochs(epochs) => format!("--epochs {epochs}"),
            Length::Steps(steps) => format!("--steps {steps}"),
        };
        text += &entry(&dataset.to_string(), dataset.spec().doc);
        let model = dataset.spec().default_model;
        text += &entry("", &format!("default: --model {model} {length} --batch-size {}", defaults.batch_size));
    }
    text += "\nModels (--model NAME:KEY=VALUE,..)\n";
    for model in registry::all() {
        text += &entry(model.name, model.doc);
        for own in model.keys {
            text += &key(&format!("{}={}", own.name, own.default), &format!("{}; {}", own.allowed, own.doc));
        }
    }
    text += &optimizers_and_schedules();
    text += "\nRecipes (--recipe)\n";
    for recipe in recipes::all(1) {
        let schedule = if recipe.name == "vision" {
            format!("cosine over {} epochs", recipes::VISION_EPOCHS)
        } else {
            recipe.schedule.to_string()
        };
        let rule: &dyn optim::Rule = &recipe.rule;
        text += &entry(recipe.name, recipe.doc);
        text += &entry("", &format!("{}; {schedule}", rule.text()));
    }
    text += &format!("\n{} without options\n", study.name);
    text += &format!("  --dataset {}\n", study.dataset);
    if let Some(model) = study.model {
        text += &format!("  --model {model}\n");
    }
    for optimizer in study.optimizers {
        text += &format!("  --opt {optimizer}\n");
    }
    for schedule in study.schedules {
        text += &format!("  --schedule {schedule}\n");
    }
    if let Some(norm) = study.norm {
        text += &format!("  --norm {norm}\n");
    }
    if !study.peaks.is_empty() {
        let peaks: Vec<String> = study.peaks.iter().map(|peak| number(*peak)).collect();
        text += &format!("  --lr {}\n", peaks.join(","));
    }
    if let Some(steps) = study.steps {
        text += &format!("  --steps {steps}\n");
    }
    text
}

/// A line on what an option can name; the second line on it has no name.
fn entry(name: &str, text: &str) -> String {
    format!("  {name:<15} {text}\n")
}

/// A key with its default, and what it can be: in a line of its own where the default leaves no room.
fn key(default: &str, allowed: &str) -> String {
    const WIDTH: usize = 22;
    let between = if default.len() > WIDTH { format!("\n{}", " ".repeat(6 + WIDTH)) } else { String::new() };
    format!("      {default:<WIDTH$}{between}  {allowed}\n")
}

/// The rules and schedules with their hyperparameters.
fn optimizers_and_schedules() -> String {
    let mut text = String::from("\nOptimizers (--opt NAME:KEY=VALUE,..)\n");
    for spec in rules::specs() {
        text += &entry(spec.name, &summary(spec.doc));
        text += &entry("", spec.formula);
        for hyperparameter in spec.hyperparameters {
            let allowed = hyperparameter.range.map_or("true or false".to_owned(), |range| range.to_string());
            let default = format!("{}={}", hyperparameter.name, hyperparameter.default);
            text += &key(&default, &format!("{allowed}. {}", summary(hyperparameter.doc)));
        }
        text += &format!("      best for {}\n", spec.best_for);
        if let Ok(rule) = optim::by_name(spec.name) {
            text += &format!("      usually {}; --tune searches {}\n", usual_of(&rule), Space::of(&rule));
        }
    }
    text += "\nSchedules of the learning rate (--schedule NAME:KEY=VALUE,..)\n";
    for piece in schedule::all() {
        text += &entry(piece.name, piece.doc);
        text += &entry("", piece.formula);
        for own in piece.keys {
            text += &key(&format!("{}={}", own.name, own.default), own.allowed);
        }
    }
    text
}

/// The first paragraph of a doc, in one line.
fn summary(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        list(&Study {
            name: "shootout",
            about: "",
            dataset: "digits",
            model: None,
            optimizers: &["adam"],
            schedules: &["cosine"],
            norm: None,
            peaks: &[1e-6, 0.1, 3.0],
            steps: None,
            own: &[],
            probe: false,
            groups: |_, _, _| Ok(Vec::new()),
        })
    }

    #[test]
    fn numbers_are_as_people_write_them() {
        let text = text();
        let long = text.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() > 6);
        assert_eq!(long, None, "{text}");
        assert!(text.contains("--lr 1e-6,0.1,3\n"), "{text}");
    }

    #[test]
    fn columns_stand_apart() {
        for line in text().lines().filter(|line| line.starts_with("      ") && line.contains('=')) {
            let (default, allowed) = line.trim_start().split_once("  ").unwrap_or((line.trim(), ""));
            assert!(allowed.is_empty() || default.len() <= 22, "{line}");
        }
        assert_eq!(key("lr=0.1", "any"), "      lr=0.1                  any\n");
        let long = "steps=as many as there are";
        assert_eq!(key(long, "any"), format!("      {long}\n{}any\n", " ".repeat(30)));
    }
}
