//! What `--list` prints.

use super::{optimizer, space::Space, split::Split};
use crate::{
    config::{
        names::{number, unknown},
        study::Study,
    },
    problem::{
        data::{
            dataset::Dataset,
            spec::{Kind, Length},
        },
        models::{
            parameters::Parameters,
            registry,
            shape::{ImageShape, Shape},
            spec::ModelSpec,
        },
    },
};
use anyhow::Result;
use candle_core::Device;
use optim::{
    AnyRule, Rule, Value, recipes,
    rule::{Family, Hyperparameter, OUTER_LAYERS, Options, Spec as RuleSpec},
    rules, schedule,
    text::same_name,
};

/// What options can name, a line each, and what the program compares without options.
pub fn list(study: &Study) -> String {
    let mut text = String::new();
    for (title, things) in all() {
        text += &format!("{title}\n");
        for thing in things {
            text += &entry(&thing.name, &thing.brief);
        }
        text += "\n";
    }
    text += &format!("`{0} --list NAME` shows one of them in full.\n\n{0} without options\n", study.name);
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

/// Everything about what has this name: keys with their defaults, formula, use; of an optimizer on matrices also which parameters
/// of `models`, as in `--model`, it takes as such.
///
/// # Errors
/// A name that nothing has, with the nearest one; a model that there is not.
pub fn describe(name: &str, models: &[String]) -> Result<String> {
    let all: Vec<Thing> = all().into_iter().flat_map(|(_, things)| things).collect();
    let named: Vec<&Thing> = all.iter().filter(|thing| same_name(&thing.name, name)).collect();
    if named.is_empty() {
        return Err(unknown("name", name, all.iter().map(|thing| thing.name.as_str())));
    }
    let mut text = named.iter().map(|thing| thing.full.as_str()).collect::<Vec<_>>().join("\n");
    for model in models {
        let model = registry::parse(model)?;
        let shape = match model.kind() {
            Kind::Images => Shape::Images(ImageShape { channels: 3, height: 32, width: 32, classes: 10 }),
            Kind::Text => Shape::Text { vocabulary: 65, context: model.context().unwrap_or(1) },
        };
        let Some(rule) = rules::specs().find(|spec| same_name(spec.name, name)) else { continue };
        let parameters = Parameters::new(0);
        model.build(&shape, parameters.builder(&Device::Cpu))?;
        let tensors: Vec<_> =
            parameters.trainable().into_iter().map(|(name, var)| (name, var.dims().to_vec())).collect();
        if let Some(split) = Split::of(&optimizer::parse(rule.name)?, &tensors) {
            text += &format!("      of {}: {split}\n", model.name());
        }
    }
    Ok(text)
}

/// What an option can name.
struct Thing {
    name: String,
    /// What it is, in a line.
    brief: String,
    /// All about it.
    full: String,
}

/// By option, in the order of `--help`.
fn all() -> Vec<(String, Vec<Thing>)> {
    let mut all = vec![
        ("Data sets (--dataset)".to_owned(), Dataset::ALL.into_iter().map(dataset).collect()),
        ("Models (--model)".to_owned(), registry::all().iter().map(model).collect()),
    ];
    for family in Family::ALL {
        let own: Vec<Thing> = rules::specs().filter(|spec| spec.family == family).map(rule).collect();
        if !own.is_empty() {
            all.push((format!("Optimizers (--opt), {family}"), own));
        }
    }
    all.extend([
        ("Options around any optimizer (--opt NAME:KEY=true)".to_owned(), Options::ALL.iter().map(option).collect()),
        ("Schedules of the learning rate (--schedule)".to_owned(), schedule::all().iter().map(piece).collect()),
        ("Recipes (--recipe)".to_owned(), recipes::all(1).iter().map(recipe).collect()),
    ]);
    all
}

fn dataset(dataset: Dataset) -> Thing {
    let (spec, name) = (dataset.spec(), dataset.to_string());
    let length = match spec.defaults.length {
        Length::Epochs(epochs) => format!("--epochs {epochs}"),
        Length::Steps(steps) => format!("--steps {steps}"),
    };
    let default = format!("default: --model {} {length} --batch-size {}", spec.default_model, spec.defaults.batch_size);
    let full = entry(&name, spec.doc) + &entry("", &default);
    Thing { name, brief: spec.doc.to_owned(), full }
}

fn model(model: &ModelSpec) -> Thing {
    let mut full = entry(model.name, model.doc);
    for own in model.keys {
        full += &key(&format!("{}={}", own.name, own.default), &format!("{}; {}", own.allowed, own.doc));
    }
    Thing { name: model.name.to_owned(), brief: brief(model.doc), full }
}

fn rule(spec: &RuleSpec) -> Thing {
    let mut full = entry(spec.name, &summary(spec.doc)) + &entry("", spec.formula);
    full += &spec.hyperparameters.iter().map(hyperparameter).collect::<String>();
    full += &format!("      best for {}\n", spec.best_for);
    let here: Vec<String> = optimizer::defaults(spec.name).map(|(key, value)| format!("{key}={value}")).collect();
    if !here.is_empty() {
        full += &format!("      in this program by default {}\n", here.join(", "));
    }
    if let Ok(rule) = optimizer::parse(spec.name) {
        full += &format!("      --tune searches {}, and further where the best lies at an end\n", Space::of(&rule));
        full += &matrices(&rule);
        let around: Vec<&str> = Options::ALL.iter().map(|own| own.name).filter(|own| goes_around(spec, own)).collect();
        full += &format!("      around it, each =true: {}\n", around.join(", "));
    }
    Thing { name: spec.name.to_owned(), brief: brief(spec.doc), full }
}

/// Whether an option has a meaning for a rule.
fn goes_around(spec: &RuleSpec, option: &str) -> bool {
    optimizer::parse(&format!("{}:{option}=true", spec.name)).is_ok()
}

fn option(option: &Hyperparameter) -> Thing {
    let full = entry(option.name, option.doc) + &entry("", &format!("default: {}", option.default));
    Thing { name: option.name.to_owned(), brief: brief(option.doc), full }
}

fn hyperparameter(own: &Hyperparameter) -> String {
    let default = match own.default {
        Value::Number(value) => rounded(value),
        other => other.to_string(),
    };
    key(&format!("{}={default}", own.name), &format!("{}. {}", own.allowed, summary(own.doc)))
}

/// A number as people write it, without digits that nobody would.
fn rounded(value: f64) -> String {
    const WIDTH: usize = 8;
    let text = number(value);
    if text.len() > WIDTH { format!("{value:.2e}") } else { text }
}

/// Which parameters a rule takes as matrices, if any.
fn matrices(rule: &AnyRule) -> String {
    let Some(matrix) = rule.matrix() else { return String::new() };
    let but = if matrix.is_matrix("embedding.weight", &[2, 2]) {
        String::new()
    } else {
        let others: Vec<&str> = OUTER_LAYERS.iter().copied().filter(|name| !name.starts_with("embed")).collect();
        format!(
            ", without a side of 1 and without a part of its name that begins with `embed` or is {}",
            others.join(", ")
        )
    };
    format!(
        "      matrices are parameters of two or more dimensions{but}; all others move by `{}`\n      --model NAME shows which these are\n",
        rule.kernel().name
    )
}

fn piece(piece: &schedule::Entry) -> Thing {
    let mut full = entry(piece.name, piece.doc) + &entry("", piece.formula);
    for own in piece.keys {
        full += &key(&format!("{}={}", own.name, own.default), own.allowed);
    }
    Thing { name: piece.name.to_owned(), brief: brief(piece.doc), full }
}

fn recipe(recipe: &recipes::Recipe) -> Thing {
    let schedule = if recipe.name == "vision" {
        format!("cosine over {} epochs", recipes::VISION_EPOCHS)
    } else {
        recipe.schedule.to_string()
    };
    let rule: &dyn optim::Rule = &recipe.rule;
    let full = entry(recipe.name, recipe.doc) + &entry("", &format!("{}; {schedule}", rule.text()));
    Thing { name: recipe.name.to_owned(), brief: recipe.doc.to_owned(), full }
}

/// A line on what an option can name; the second line on it has no name.
fn entry(name: &str, text: &str) -> String {
    format!("  {name:<19} {text}\n")
}

/// A key with its default, and what it can be: in a line of its own where the default leaves no room.
fn key(default: &str, allowed: &str) -> String {
    const WIDTH: usize = 22;
    let between = if default.len() > WIDTH { format!("\n{}", " ".repeat(6 + WIDTH)) } else { String::new() };
    format!("      {default:<WIDTH$}{between}  {allowed}\n")
}

/// The first paragraph of a doc, in one line.
fn summary(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// The first sentence of a doc, without what stands in brackets, as much of it as a line holds.
fn brief(doc: &str) -> String {
    const WIDTH: usize = 100;
    let mut text = summary(doc);
    while let (Some(open), Some(close)) = (text.find(" ("), text.find(')')) {
        text.replace_range(open..=close.max(open), "");
    }
    let sentence = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let end = match sentence.get(..WIDTH) {
        Some(start) => start.rfind(", ").unwrap_or(sentence.len()),
        None => sentence.len(),
    };
    sentence[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> String {
        list(&Study {
            name: "shootout",
            about: "",
            examples: &[],
            dataset: "digits",
            model: None,
            optimizers: &["adam"],
            first: None,
            schedules: &["cosine"],
            norm: None,
            peaks: &[1e-6, 0.1, 3.0],
            steps: None,
            own: &[],
            probe: false,
            groups: |_| Ok(Vec::new()),
        })
    }

    /// The list, and all that it names in full.
    fn text() -> String {
        let named = all().into_iter().flat_map(|(_, things)| things).map(|thing| describe(&thing.name, &[]).unwrap());
        named.fold(short(), |text, full| text + &full)
    }

    #[test]
    fn the_list_is_short_and_a_name_shows_all() {
        let short = short();
        assert!(short.lines().all(|line| line.len() <= 120), "{short}");
        // A line a rule.
        let rules = rules::specs().count();
        assert!(short.lines().count() <= 65 + rules, "{short}");
        for family in Family::ALL.iter().filter(|family| rules::specs().any(|spec| spec.family == **family)) {
            let (title, line) = (format!("Optimizers (--opt), {family}"), |name: &str| format!("\n  {name} "));
            let own = short.split(&title).nth(1).and_then(|rest| rest.split("\n\n").next());
            let own = own.unwrap_or_else(|| panic!("{family}: {short}"));
            for spec in rules::specs() {
                assert_eq!(own.contains(&line(spec.name)), spec.family == *family, "{}: {own}", spec.name);
            }
        }
        assert!(!short.contains("beta2"), "{short}");
        let adamw = describe("AdamW", &[]).unwrap();
        for part in [
            "arXiv:1711.05101",
            "theta -= lr",
            "beta2=0.999",
            "--tune searches lr=1e-5..0.1,weight_decay=0|0.003..0.3,",
            "around it, each =true: maximize, cautious, cautious_decay, corrected_decay",
        ] {
            assert!(adamw.contains(part), "{adamw}");
        }
        let sgd = describe("sgd", &[]).unwrap();
        assert!(sgd.contains("around it, each =true: maximize, cautious\n"), "{sgd}");
        assert!(describe("cautious", &[]).unwrap().contains("agrees in sign"));
        assert!(describe("muon", &["gptt".to_owned()]).is_err());
        assert!(describe("gpt", &[]).unwrap().contains("layers=4"));
        assert!(describe("wsd", &[]).unwrap().contains("decay="));
        assert!(describe("cifar10", &[]).unwrap().contains("--batch-size 128"));
        assert!(describe("llm", &[]).unwrap().contains("warmup_cosine"));
        let error = describe("adamv", &[]).unwrap_err().to_string();
        assert!(error.contains("`adamv`") && error.contains("did you mean `adam"), "{error}");
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
