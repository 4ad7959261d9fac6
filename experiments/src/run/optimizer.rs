//! The optimizer of a trial, from the text that users write.

use crate::{
    record::TrialConfig,
    run::{list, tune},
};
use anyhow::{Context, Result};
use candle_core::Var;
use optim::{AnyOptimizer, AnyRule, Clip, Group, Rule, Schedule, Value, rules, schedule};
use serde_json::Map;

/// Reads an optimizer, as in `--opt NAME[:KEY=VALUE,..]`.
///
/// # Errors
/// An unknown name or key (with the nearest known one), or a value that is not allowed.
pub fn parse(text: &str) -> Result<AnyRule> {
    Ok(optim::by_name(text)?)
}

/// Reads a schedule of the learning rate, as in `--schedule NAME[:KEY=VALUE,..]`. What the text leaves open is the learning
/// rate of `rule`, and `steps` for the length of the run.
///
/// # Errors
/// An unknown name or key (with the nearest known one), or a value that is not allowed.
pub fn parse_schedule(text: &str, rule: &AnyRule, steps: u64) -> Result<Schedule> {
    let lr = rule.get("lr").ok().map(f64::from);
    Ok(Schedule::parse(text, &schedule::Defaults { lr, steps: Some(steps) })?)
}

/// The optimizer of `parameters` by `rule`, whose learning rate follows `schedule`; clipping and what decays are as `config`
/// says.
///
/// # Errors
/// When the rule has no learning rate, or a parameter cannot be optimized.
pub fn build(
    parameters: Vec<(String, Var)>,
    rule: &AnyRule,
    schedule: &Schedule,
    config: &TrialConfig,
) -> Result<AnyOptimizer> {
    let groups = match config.decay_matrices_only {
        true => optim::exclude_from_decay(parameters, rule).into(),
        false => vec![Group::new(parameters, rule.clone())],
    };
    let groups = groups.into_iter().map(|group| Ok(group.schedule("lr", schedule.clone())?));
    let groups = groups.collect::<Result<_>>()?;
    let mut optimizer = AnyOptimizer::from_groups(groups).context("cannot build the optimizer")?;
    optimizer.set_clip(config.clip.map(Clip::GlobalNorm))?;
    Ok(optimizer)
}

/// All hyperparameters of `rule`, for records.
pub fn hyperparameters(rule: &AnyRule) -> Map<String, serde_json::Value> {
    let value = |key: &str| match rule.field(key)? {
        Value::Number(number) => Some(number.into()),
        Value::Flag(flag) => Some(flag.into()),
    };
    let own = rule.hyperparameters().into_iter().map(|hyperparameter| hyperparameter.name);
    own.filter_map(|key| Some((key.to_owned(), value(key)?))).collect()
}

/// The rules and schedules with their hyperparameters, for `--list`.
pub fn list() -> String {
    let mut text = String::from("\nOptimizers (--opt NAME:KEY=VALUE,..)\n");
    for spec in rules::specs() {
        text += &list::entry(spec.name, &summary(spec.doc));
        text += &list::entry("", spec.formula);
        for hyperparameter in spec.hyperparameters {
            let allowed = hyperparameter.range.map_or("true or false".to_owned(), |range| range.to_string());
            let default = format!("{}={}", hyperparameter.name, hyperparameter.default);
            text += &list::key(&default, &format!("{allowed}. {}", summary(hyperparameter.doc)));
        }
        text += &format!("      best for {}\n", spec.best_for);
        if let Ok(rule) = optim::by_name(spec.name) {
            text += &format!("      usually {}; --tune searches {}\n", tune::usual_of(&rule), tune::Space::of(&rule));
        }
    }
    text += "\nSchedules of the learning rate (--schedule NAME:KEY=VALUE,..)\n";
    for entry in schedule::all() {
        text += &list::entry(entry.name, entry.doc);
        text += &list::entry("", entry.formula);
        for key in entry.keys {
            text += &list::key(&format!("{}={}", key.name, key.default), key.allowed);
        }
    }
    text
}

/// The first paragraph of a doc, in one line.
fn summary(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}
