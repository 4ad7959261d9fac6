//! The hyperparameters of a rule as records have them.

use optim::{AnyRule, Rule, Value};
use serde_json::Map;

/// All hyperparameters of `rule`.
pub fn of(rule: &AnyRule) -> Map<String, serde_json::Value> {
    let value = |key: &str| match rule.field(key)? {
        Value::Number(number) => Some(number.into()),
        Value::Flag(flag) => Some(flag.into()),
        Value::Choice(name) => Some(name.into()),
    };
    let own = rule.hyperparameters().into_iter().map(|hyperparameter| hyperparameter.name);
    own.filter_map(|key| Some((key.to_owned(), value(key)?))).collect()
}
