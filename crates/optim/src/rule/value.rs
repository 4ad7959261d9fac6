//! Hyperparameters: their values, and what is known of each.

use crate::error::{Error, Result};
use crate::text::same_name;
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
pub const NON_NEGATIVE: Range = Range::new(Bound::Included(0.0), Bound::Excluded(f64::INFINITY), "a number >= 0");
/// `0 <= x < 1`: the decay rate of a moving average.
pub const FRACTION: Range = Range::new(Bound::Included(0.0), Bound::Excluded(1.0), "a number in [0, 1)");

/// Finite and `> 0`.
pub const POSITIVE: Range = Range::new(Bound::Excluded(0.0), Bound::Excluded(f64::INFINITY), "a number > 0");
/// `0 < x < 1`: a factor that shrinks.
pub const OPEN_FRACTION: Range = Range::new(Bound::Excluded(0.0), Bound::Excluded(1.0), "a number in (0, 1)");
/// Finite and `> 1`: a factor that grows.
pub const ABOVE_ONE: Range = Range::new(Bound::Excluded(1.0), Bound::Excluded(f64::INFINITY), "a number > 1");

impl Range {
    /// The numbers between two bounds. `text` says it in an error, after "it must be".
    pub const fn new(low: Bound<f64>, high: Bound<f64>, text: &'static str) -> Self {
        Self { low, high, text }
    }

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

/// What a hyperparameter may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// A number of a range.
    Number(Range),
    /// On or off.
    Flag,
    /// One of these names.
    Choice(&'static [&'static str]),
}

impl Allowed {
    /// The range of a number.
    pub fn range(&self) -> Option<Range> {
        match self {
            Self::Number(range) => Some(*range),
            _ => None,
        }
    }
}

impl Display for Allowed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(range) => range.fmt(f),
            Self::Flag => f.write_str("true or false"),
            Self::Choice([names @ .., last]) if !names.is_empty() => write!(f, "{} or {last}", names.join(", ")),
            Self::Choice(names) => f.write_str(&names.join("")),
        }
    }
}

/// The default of a choice, which is one of its names: else the declaration does not compile.
#[doc(hidden)]
pub const fn one_of(default: &'static str, names: &[&str]) -> &'static str {
    let mut at = 0;
    while at < names.len() {
        let (a, b) = (default.as_bytes(), names[at].as_bytes());
        let mut same = 0;
        while same < a.len() && same < b.len() && a[same] == b[same] {
            same += 1;
        }
        if same == a.len() && same == b.len() {
            return default;
        }
        at += 1;
    }
    panic!("the default of a choice is none of its names")
}

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number, checked against the hyperparameter's [`Range`].
    Number(f64),
    /// A switch.
    Flag(bool),
    /// One of the hyperparameter's names.
    Choice(&'static str),
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            // `{:?}` is the shortest text that reads back as the same number.
            Value::Number(x) => write!(f, "{x:?}"),
            Value::Flag(x) => write!(f, "{x}"),
            Value::Choice(x) => f.write_str(x),
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
impl From<&'static str> for Value {
    fn from(x: &'static str) -> Self {
        Value::Choice(x)
    }
}
impl From<Value> for f64 {
    /// A flag counts as 0 or 1. A choice is no number: NaN.
    fn from(value: Value) -> f64 {
        match value {
            Value::Number(x) => x,
            Value::Flag(x) => f64::from(u8::from(x)),
            Value::Choice(_) => f64::NAN,
        }
    }
}
impl From<Value> for bool {
    /// A number counts as true unless it is 0. A choice is no flag: false.
    fn from(value: Value) -> bool {
        match value {
            Value::Number(x) => x != 0.0,
            Value::Flag(x) => x,
            Value::Choice(_) => false,
        }
    }
}

/// A field of a rule's struct.
#[doc(hidden)]
pub trait Field {
    /// Takes a value of its own kind.
    fn set(&mut self, value: Value);
}

impl Field for f64 {
    fn set(&mut self, value: Value) {
        if let Value::Number(x) = value {
            *self = x;
        }
    }
}
impl Field for bool {
    fn set(&mut self, value: Value) {
        if let Value::Flag(x) = value {
            *self = x;
        }
    }
}
impl Field for &'static str {
    fn set(&mut self, value: Value) {
        if let Value::Choice(x) = value {
            *self = x;
        }
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
    /// What it may be.
    pub allowed: Allowed,
    /// The value that a search looks around, on a logarithmic scale: what suits most problems. NaN of what is no number.
    pub usual: f64,
}

impl Hyperparameter {
    pub(crate) fn check(&self, rule: &str, value: Value) -> Result<()> {
        let fits = match (self.allowed, value) {
            (Allowed::Number(range), Value::Number(x)) => range.contains(x),
            (Allowed::Flag, Value::Flag(_)) => true,
            (Allowed::Choice(names), Value::Choice(name)) => names.contains(&name),
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refuse(rule, value.to_string())) }
    }

    pub(crate) fn parse(&self, rule: &str, text: &str) -> Result<Value> {
        let value = match self.allowed {
            Allowed::Number(_) => text.parse().ok().map(Value::Number),
            Allowed::Flag => text.parse().ok().map(Value::Flag),
            Allowed::Choice(names) => names.iter().find(|name| same_name(name, text)).map(|name| Value::Choice(name)),
        };
        value.ok_or_else(|| self.refuse(rule, text.to_string()))
    }

    fn refuse(&self, rule: &str, value: String) -> Error {
        let allowed = self.allowed.to_string();
        Error::OutOfRange { rule: rule.to_string(), key: self.name.to_string(), value, allowed }
    }
}

#[cfg(test)]
mod tests {
    use super::one_of;

    #[test]
    fn the_default_of_a_choice_is_one_of_its_names() {
        for (default, names, fits) in [
            ("a", &["a", "b"][..], true),
            ("b", &["a", "b"], true),
            ("ab", &["a", "abc", "b"], false),
            ("", &["a"], false),
            ("a", &[], false),
        ] {
            assert_eq!(std::panic::catch_unwind(|| one_of(default, names)).is_ok(), fits, "{default} {names:?}");
        }
    }
}
