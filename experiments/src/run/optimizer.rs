//! The optimizer of a trial, from the text that users write.

use crate::record::trial::TrialConfig;
use anyhow::{Context, Result};
use candle_core::Var;
use optim::{
    AnyOptimizer, AnyRule, Average, Clip, EmaWarmup, Group, Lookahead, Rule, Schedule, Value, schedule, text::SpecText,
};

/// Where a rule's own default suits none of the problems here, what takes its place unless a text has the key: a batch is noisy, so
/// that a fixed step along a line diverges.
pub const DEFAULTS: &[(&str, &str, Value)] = &[("lbfgs", "strong_wolfe", Value::Flag(true))];

/// The [`DEFAULTS`] for the rule of this name.
pub fn defaults(rule: &str) -> impl Iterator<Item = (&'static str, Value)> {
    DEFAULTS.iter().filter(move |(name, ..)| *name == rule).map(|(_, key, value)| (*key, *value))
}

/// Reads an optimizer, as in `--opt NAME[:KEY=VALUE,..]`. What the text leaves open is the rule's default, or that of [`DEFAULTS`].
///
/// # Errors
/// An unknown name or key (with the nearest known one), a value that is not allowed, or an option that has no meaning for the rule.
pub fn parse(text: &str) -> Result<AnyRule> {
    let mut rule = optim::by_name(text)?;
    let head = rule.qualified_name();
    for (key, value) in defaults(head.rsplit('=').next().unwrap_or_default()) {
        if SpecText::of(text).get(key).is_none() {
            rule.set(key, value)?;
        }
    }
    rule.validate()?;
    Ok(rule)
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

/// The optimizer of `parameters` by `rule`, whose learning rate follows `schedule`; clipping, averages and what decays are as
/// `config` says.
///
/// # Errors
/// When the rule has no learning rate, or a parameter cannot be optimized.
pub fn build(
    parameters: Vec<(String, Var)>,
    rule: &AnyRule,
    schedule: &Schedule,
    config: &TrialConfig,
) -> Result<AnyOptimizer> {
    // L-BFGS has no decay, and one line for all parameters.
    let groups = match config.decay_matrices_only && rule.quasi_newton().is_none() {
        true => optim::exclude_from_decay(parameters, rule).into(),
        false => vec![Group::new(parameters, rule.clone())],
    };
    let groups = groups.into_iter().map(|group| Ok(group.schedule("lr", schedule.clone())?));
    let groups = groups.collect::<Result<_>>()?;
    let mut optimizer = AnyOptimizer::from_groups(groups).context("cannot build the optimizer")?;
    optimizer.set_clip(config.clip.map(Clip::GlobalNorm))?;
    optimizer.set_average(config.ema.map(|decay| Average::Ema { decay, warmup: EmaWarmup::Ratio }))?;
    optimizer.set_lookahead(config.lookahead.map(|every| Lookahead { every, ..Lookahead::default() }))?;
    Ok(optimizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_lab_give_way_to_what_a_text_says() {
        for (rule, key, value) in DEFAULTS {
            assert_eq!(parse(rule).unwrap().field(key), Some(*value), "{rule}: {key}");
            let own = optim::by_name(rule).unwrap();
            assert_ne!(own.field(key), Some(*value), "{rule}: {key} is its default");
            // Its whole text, as in a record, has all keys.
            assert_eq!(parse(&own.to_string()).unwrap(), own);
        }
        assert_eq!(parse("adamw").unwrap(), optim::by_name("adamw").unwrap());
    }
}
