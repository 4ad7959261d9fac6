//! The learning rates and weight decays that are usual for each rule. What `--tune` searches follows from them.

use crate::config::names::number;
use optim::{AnyRule, Rule, Value};
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
    /// The choice of the rule that these values are for, if they are for one of its names only: key and name.
    pub choice: Option<(&'static str, &'static str)>,
    /// Its usual learning rates.
    pub lr: Interval,
    /// How far beyond them a search goes, to either side: 1 for a rule that finds its step size by itself.
    pub margin: f64,
    /// Its usual weight decays; none where the rule has no decay.
    pub weight_decay: Option<Interval>,
}

const fn of(rule: &'static str, lr: [f64; 2], weight_decay: [f64; 2]) -> UsualRanges {
    let weight_decay = Some(Interval { low: weight_decay[0], high: weight_decay[1] });
    UsualRanges { weight_decay, ..without_decay(rule, lr) }
}

const fn without_decay(rule: &'static str, lr: [f64; 2]) -> UsualRanges {
    let lr = Interval { low: lr[0], high: lr[1] };
    UsualRanges { rule, choice: None, lr, margin: MARGIN, weight_decay: None }
}

const fn with_choice(choice: (&'static str, &'static str), usual: UsualRanges) -> UsualRanges {
    UsualRanges { choice: Some(choice), ..usual }
}

const fn without_margin(usual: UsualRanges) -> UsualRanges {
    UsualRanges { margin: 1.0, ..usual }
}

/// How far beyond the usual learning rates a search goes.
const MARGIN: f64 = 10.0;

/// What is usual for each rule. SAM is searched as its base is. Learning rates span a decade for every rule, and those of rules
/// whose updates scale alike are the same: else a comparison after tuning would be one of spaces.
pub const USUAL_RANGES: &[UsualRanges] = &[
    of("sgd", [1e-2, 1e-1], [1e-4, 1e-4]),
    of("asgd", [1e-2, 1e-1], [1e-4, 1e-4]),
    without_decay("rprop", [1e-3, 1e-2]),
    without_decay("lbfgs", [1e-1, 1.0]),
    of("lars", [1.0, 10.0], [1e-4, 1e-4]),
    of("signum", [1e-5, 1e-4], [1e-1, 1.0]),
    of("tiger", [1e-5, 1e-4], [1e-1, 1.0]),
    of("lion", [1e-5, 1e-4], [1e-1, 1.0]),
    of("adagrad", [1e-2, 1e-1], [0.0, 0.0]),
    of("adadelta", [1e-1, 1.0], [0.0, 0.0]),
    of("rmsprop", [1e-4, 1e-3], [0.0, 0.0]),
    of("adam", [1e-4, 1e-3], [0.0, 0.0]),
    of("adamax", [1e-4, 1e-3], [0.0, 0.0]),
    of("amsgrad", [1e-4, 1e-3], [0.0, 0.0]),
    of("nadam", [1e-4, 1e-3], [0.0, 0.0]),
    of("radam", [1e-4, 1e-3], [0.0, 0.0]),
    of("adabelief", [1e-4, 1e-3], [0.0, 0.0]),
    of("yogi", [1e-3, 1e-2], [0.0, 0.0]),
    of("adamw", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("laprop", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("adopt", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("stable_adamw", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("adan", [1e-3, 1e-2], [1e-2, 1e-1]),
    of("ademamix", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("mars", [1e-3, 1e-2], [1e-2, 1e-1]),
    of("sophia", [1e-4, 1e-3], [1e-2, 1e-1]),
    of("lamb", [1e-3, 1e-2], [1e-2, 1e-2]),
    // A step is a share of the parameter's size.
    of("adafactor", [1e-3, 1e-2], [0.0, 0.0]),
    // Scaled to the length of AdamW's step a matrix bears a little more than AdamW does; unscaled, Jordan's 0.02 is usual.
    of("muon", [3e-4, 3e-3], [1e-2, 1e-1]),
    with_choice(("scale", "original"), of("muon", [5e-3, 5e-2], [1e-2, 1e-1])),
    // Of these all other parameters have a twentieth of the learning rate, which is to suit AdamW.
    of("normuon", [2e-3, 2e-2], [1e-2, 1e-1]),
    with_choice(("scale", "original"), of("normuon", [5e-3, 5e-2], [1e-2, 1e-1])),
    of("adamuon", [2e-3, 2e-2], [1e-2, 1e-1]),
    of("soap", [3e-4, 3e-3], [1e-2, 1e-1]),
    of("shampoo", [1e-4, 1e-3], [0.0, 0.0]),
    with_choice(("grafting", "sgd"), of("shampoo", [1e-2, 1e-1], [0.0, 0.0])),
    of("schedule_free_sgd", [1.0, 10.0], [1e-4, 1e-4]),
    of("schedule_free_adamw", [1e-3, 1e-2], [1e-2, 1e-1]),
    without_margin(of("prodigy", [0.3, 3.0], [1e-2, 1e-1])),
];

/// What is usual for `rule`, or for the base of a SAM. Of a rule that a program registered the default is known: the learning
/// rates are the decade below it, and the weight decay is the default.
pub fn usual_of(rule: &AnyRule) -> UsualRanges {
    let head = rule.qualified_name();
    let name = head.rsplit('=').next().unwrap_or_default();
    let is_chosen = |usual: &UsualRanges| match usual.choice {
        None => true,
        Some((key, choice)) => rule.field(key) == Some(Value::Choice(choice)),
    };
    // Those for a choice stand after those for all.
    let known = USUAL_RANGES.iter().rfind(|usual| usual.rule == name && is_chosen(usual));
    known.copied().unwrap_or_else(|| {
        let all = rule.hyperparameters();
        let default = |key| all.iter().find(|own| own.name == key).map_or(0.0, |own| own.default.into());
        let (lr, weight_decay) = (default("lr"), default("weight_decay"));
        of(rule.spec().name, [rounded(lr / 10.0), lr], [weight_decay, weight_decay])
    })
}

/// A tenth of 1e-5 is not 1e-6 by the last bit, which nobody would write.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().expect("a number prints as a number")
}

impl UsualRanges {
    /// The learning rates that are searched: the usual ones, and beyond them by the margin.
    pub fn searched_lr(&self) -> Interval {
        let Interval { low, high } = self.lr;
        Interval { low: rounded(low / self.margin), high: rounded(high * self.margin) }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::space::Space;
    use optim::rule::{Kernel, Progress, as_declared, hyperparameters};
    use optim::rules::Sam;

    macro_rules! rule {
        ($Rule:ident, $($key:ident: $default:literal),*) => {
            hyperparameters! {
                /// A rule of a program.
                struct $Rule = "own" { $($key: $default in NON_NEGATIVE,)* }
                formula: ""
                best_for: ""
                family: FirstOrder
            }
            impl Rule for $Rule {
                as_declared!();
                fn kernel(&self) -> &'static Kernel {
                    optim::rules::Sgd::default().kernel()
                }
                fn scalars(&self, _: &mut Progress<'_>) -> Vec<f64> {
                    Vec::new()
                }
            }
        };
    }
    rule!(Full, lr: 1e-5, weight_decay: 0.1);
    rule!(NoDecay, lr: 1.0);
    rule!(NoLr, weight_decay: 0.0);

    #[test]
    fn every_rule_of_the_library_has_its_own_and_a_registered_one_has_those_of_its_defaults() {
        for spec in optim::rules::specs().filter(|spec| spec.family != optim::rule::Family::Wrapper) {
            let own = USUAL_RANGES.iter().find(|usual| usual.rule == spec.name);
            let own = own.unwrap_or_else(|| panic!("{} has no usual range", spec.name));
            assert_eq!(own.choice, None, "{}: the first is for all choices", spec.name);
            let own = own.weight_decay.is_some();
            assert_eq!(own, spec.hyperparameters.iter().any(|own| own.name == "weight_decay"), "{}", spec.name);
        }
        for (rule, usual, space) in [
            (Full::default().boxed(), "lr=1e-6..1e-5,weight_decay=0.1", "lr=1e-7..1e-4,weight_decay=0.1"),
            (NoDecay::default().boxed(), "lr=0.1..1,weight_decay=0", "lr=0.01..10"),
            (NoLr::default().boxed(), "lr=0,weight_decay=0", "weight_decay=0"),
            (Sam::new(Full::default()).boxed(), "lr=1e-6..1e-5,weight_decay=0.1", "lr=1e-7..1e-4,weight_decay=0.1"),
        ] {
            assert_eq!(usual_of(&rule).to_string(), usual, "{rule}");
            let found = Space::of(&rule);
            assert_eq!(found.to_string(), space, "{rule}");
            found.point(&rule, 5).unwrap().validate().unwrap();
        }
    }
}
