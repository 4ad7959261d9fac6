//! Hyperparameters: their values, and what is known of each.

use crate::error::{Error, Result};
use std::fmt::{Display, Formatter};
use std::ops::Bound;

/// The numbers that a hyperparameter may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: Bound<f64>,
    high: Bound<f64>,
    text: &'static str,
}

/// Finite and `>= 0`.
pub const NON_NEGATIVE: Range =
    Range { low: Bound::Included(0.0), high: Bound::Excluded(f64::INFINITY), text: "a number >= 0" };
/// `0 <= x < 1`: the decay rate of a moving average.
pub const FRACTION: Range = Range { low: Bound::Included(0.0), high: Bound::Excluded(1.0), text: "a number in [0, 1)" };

impl Range {
    /// Whether `x` lies in it. NaN never does.
    pub fn contains(&self, x: f64) -> bool {
        use std::ops::RangeBounds;
        (self.low, self.high).contains(&x)
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number, checked against the hyperparameter's [`Range`].
    Number(f64),
    /// A switch.
    Flag(bool),
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            // `{:?}` is the shortest text that reads back as the same number.
            Value::Number(x) => write!(f, "{x:?}"),
            Value::Flag(x) => write!(f, "{x}"),
        }
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Value::Number(x)
    }
}
impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Value::Flag(x)
    }
}
impl From<Value> for f64 {
    /// A flag counts as 0 or 1.
    fn from(value: Value) -> f64 {
        match value {
            Value::Number(x) => x,
            Value::Flag(x) => f64::from(u8::from(x)),
        }
    }
}
impl From<Value> for bool {
    fn from(value: Value) -> bool {
        f64::from(value) != 0.0
    }
}

/// What is known of a hyperparameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameter {
    /// Its key, the field of the rule's struct.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// The value that a default rule has.
    pub default: Value,
    /// The allowed numbers; `None` for a flag.
    pub range: Option<Range>,
}

impl Hyperparameter {
    fn allowed(&self) -> String {
        self.range.map_or("true or false".to_string(), |r| r.to_string())
    }

    pub(crate) fn check(&self, rule: &str, value: Value) -> Result<()> {
        let fits = match (self.range, value) {
            (Some(range), Value::Number(x)) => range.contains(x),
            (None, Value::Flag(_)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refuse(rule, value.to_string())) }
    }

    pub(crate) fn parse(&self, rule: &str, text: &str) -> Result<Value> {
        let value = match self.range {
            Some(_) => text.parse().ok().map(Value::Number),
            None => text.parse().ok().map(Value::Flag),
        };
        value.ok_or_else(|| self.refuse(rule, text.to_string()))
    }

    fn refuse(&self, rule: &str, value: String) -> Error {
        Error::OutOfRange { rule: rule.to_string(), key: self.name.to_string(), value, allowed: self.allowed() }
    }
}
