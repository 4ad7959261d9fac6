//! The optimizer of a trial, from the text that users write.

use crate::record::trial::TrialConfig;
use anyhow::{Context, Result};
use candle_core::Var;
use optim::{AnyOptimizer, AnyRule, Clip, Group, Rule, Schedule, schedule};

/// Reads an optimizer, as in `--opt NAME[:KEY=VALUE,..]`.
///
/// # Errors
/// An unknown name or key (with the nearest known one), a value that is not allowed, or an option that has no meaning for the rule.
pub fn parse(text: &str) -> Result<AnyRule> {
    let rule = optim::by_name(text)?;
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
