//! The learning rates and weight decays that are usual for each rule. What `--tune` searches follows from them.

use crate::config::names::number;
use optim::{AnyRule, Rule};
use std::fmt;

/// The values of a hyperparameter that are searched, at equal density per decade.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Interval {
    /// The value at `share` of the way from low to high, on a logarithmic scale; the one value where they are the same.
    pub fn at(self, share: f64) -> f64 {
        if self.low == self.high { self.low } else { (self.low.ln() + share * (self.high.ln() - self.low.ln())).exp() }
    }
}

/// Intervals by the key that they are of, as in `--space`.
pub fn text(intervals: &[(String, Interval)]) -> String {
    let interval = |(key, Interval { low, high }): &(String, Interval)| {
        let [low_text, high_text] = [*low, *high].map(number);
        if low == high { format!("{key}={low_text}") } else { format!("{key}={low_text}..{high_text}") }
    };
    intervals.iter().map(interval).collect::<Vec<_>>().join(",")
}

/// What is usual for a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UsualRanges {
    /// The rule.
    pub rule: &'static str,
    /// Its usual learning rates.
    pub lr: Interval,
    /// Its usual weight decays; none where the rule has no decay.
    pub weight_decay: Option<Interval>,
}

const fn of(rule: &'static str, lr: [f64; 2], weight_decay: [f64; 2]) -> UsualRanges {
    let weight_decay = Some(Interval { low: weight_decay[0], high: weight_decay[1] });
    UsualRanges { weight_decay, ..without_decay(rule, lr) }
}

const fn without_decay(rule: &'static str, lr: [f64; 2]) -> UsualRanges {
    UsualRanges { rule, lr: Interval { low: lr[0], high: lr[1] }, weight_decay: None }
}

/// What is usual for each rule. SAM is searched as its base is. Learning rates span a decade for every rule, and those of rules
/// whose updates scale alike are the same: else a comparison after tuning would be one of spaces.
pub const USUAL_RANGES: &[UsualRanges] = &[
    of("sgd", [1e-2, 1e-1], [1e-4, 1e-4]),
    of("rmsprop", [1e-4, 1e-3], [0.0, 0.0]),
    of("adam", [1e-4, 1e-3], [0.0, 0.0]),
    of("amsgrad", [1e-4, 1e-3], [0.0, 0.0]),
    of("adamw", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("lion", [1e-5, 1e-4], [1e-1, 1.0]),
    of("lamb", [1e-3, 1e-2], [1e-2, 1e-2]),
    of("asgd", [1e-2, 1e-1], [1e-4, 1e-4]),
    without_decay("rprop", [1e-3, 1e-2]),
    of("adagrad", [1e-2, 1e-1], [0.0, 0.0]),
    of("adadelta", [1e-1, 1.0], [0.0, 0.0]),
    of("adamax", [1e-4, 1e-3], [0.0, 0.0]),
    of("nadam", [1e-4, 1e-3], [0.0, 0.0]),
    of("radam", [1e-4, 1e-3], [0.0, 0.0]),
];

/// What is usual for `rule`, or for the base of a SAM.
pub fn usual_of(rule: &AnyRule) -> &'static UsualRanges {
    let head = rule.qualified_name();
    let name = head.rsplit('=').next().unwrap_or_default();
    USUAL_RANGES.iter().find(|usual| usual.rule == name).expect("every rule has a usual range, as a test checks")
}

impl UsualRanges {
    /// By key, with learning rates of the caller's choice.
    pub fn intervals(&self, lr: Interval) -> Vec<(String, Interval)> {
        let decay = self.weight_decay.map(|decay| ("weight_decay".to_owned(), decay));
        [("lr".to_owned(), lr)].into_iter().chain(decay).collect()
    }
}

impl fmt::Display for UsualRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.intervals(self.lr)))
    }
}
