//! The rules that a program adds to those of this crate.

use crate::error::{Error, Result};
use crate::rule::contract::{AnyRule, Rule};
use crate::text::same_name;
use std::sync::{PoisonError, RwLock};

static REGISTERED: RwLock<Vec<fn() -> AnyRule>> = RwLock::new(Vec::new());

/// What makes each with its defaults, in the order of registration.
pub(super) fn all() -> Vec<fn() -> AnyRule> {
    REGISTERED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Adds a rule, unless it has one of the names that are `taken`, or one that is registered, or a key of those `around` every rule.
pub(super) fn add<R: Rule + Default>(taken: &[&str], around: &[&str]) -> Result<()> {
    let rule = R::default();
    let name = rule.spec().name;
    rule.validate()?;
    let refuse = |problem: &str| Err(Error::CannotRegister { name: name.to_string(), problem: problem.to_string() });
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(is_word) {
        return refuse("a name is letters, digits, `_` and `-`, and starts with a letter");
    }
    let own = rule.hyperparameters();
    if let Some(own) = own.iter().find(|own| around.iter().any(|key| same_name(key, own.name))) {
        return refuse(&format!("its hyperparameter `{}` has the name of what goes around every rule", own.name));
    }
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    let of_others = registered.iter().map(|make| make().spec().name);
    if let Some(other) = taken.iter().copied().chain(of_others).find(|other| same_name(other, name)) {
        return refuse(&format!("there is a rule `{other}`, and neither case nor `-` and `_` tell names apart"));
    }
    registered.push(|| R::default().boxed());
    Ok(())
}
