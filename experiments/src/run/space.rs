//! The space of hyperparameters that a group is searched in, and the points of it that are tried.

use super::usual_ranges::{Interval, text, usual_of};
use crate::config::names::number;
use anyhow::{Result, anyhow, bail};
use optim::{
    AnyRule, Rule,
    rule::Options,
    text::{PairError, SpecText, same_name},
};
use std::fmt;

/// What is searched for a group: intervals of hyperparameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    intervals: Vec<(String, Interval)>,
}

impl Space {
    /// The default space of `rule`: its usual learning rates, a factor of ten wider to either side (none for a rule that finds its
    /// step size by itself), and its usual weight decays; what of them it has.
    pub fn of(rule: &AnyRule) -> Self {
        let usual = usual_of(rule);
        let mut intervals = usual.intervals(usual.searched_lr());
        intervals.retain(|(key, _)| rule.field(key).is_some());
        Self { intervals }
    }

    /// The space of `rule`, which is `text` as a user writes it: the last of `given` that names it (`NAME:KEY=LOW..HIGH,..`), else
    /// the default, without the keys that `text` gives a value.
    ///
    /// # Errors
    /// A text in `given` that is not of that form, names a key twice, or whose rule is unknown; a key that the rule lacks, or whose
    /// value is no number; bounds that are no positive numbers in order, or that the hyperparameter does not allow.
    pub fn choose(text: &str, rule: &AnyRule, given: &[String]) -> Result<Self> {
        let mut chosen = Self::of(rule);
        for text in given {
            let given = SpecText::of(text).without_blanks();
            let named = optim::by_name(&given.name)?.spec().name;
            let pairs = given.pairs().map_err(|error| match error {
                PairError::NotAPair { part } => no_interval(text, &part),
                twice => anyhow!("space `{text}`: {twice}"),
            })?;
            let known = if named == rule.spec().name { rule.clone() } else { optim::by_name(&given.name)? };
            let intervals = pairs.into_iter().map(|(key, bounds)| {
                let mut all = known.hyperparameters().into_iter().chain(Options::ALL);
                let own = all.find(|own| same_name(own.name, key));
                let key = own.map_or(key, |own| own.name);
                if let Some(own) = own.filter(|own| own.allowed.range().is_none()) {
                    bail!(
                        "space `{text}`: `{}` is {}, which is no number to search: give --opt a value of it",
                        own.name,
                        own.allowed
                    );
                }
                let interval = parse_interval(key, bounds);
                Ok((key.to_owned(), interval.ok_or_else(|| no_interval(text, &format!("{key}={bounds}")))?))
            });
            let intervals = intervals.collect::<Result<Vec<_>>>()?;
            if intervals.is_empty() {
                bail!("space `{text}`: it must be NAME:KEY=LOW..HIGH,.., as in `adamw:lr=1e-4..1e-2`");
            }
            if named == rule.spec().name {
                for (key, interval) in &intervals {
                    for bound in [interval.low, interval.high] {
                        rule.clone().set(key, bound.into())?;
                    }
                }
                chosen = Self { intervals };
            }
        }
        chosen.intervals.retain(|(key, _)| !gives(text, key));
        Ok(chosen)
    }

    /// Whether there is anything to search: an interval of more than one value.
    pub fn is_searchable(&self) -> bool {
        self.intervals.iter().any(|(_, interval)| interval.low < interval.high)
    }

    /// The optimizer `text` without the values of what the default space of its rule searches, so that tuning chooses them.
    ///
    /// # Errors
    /// A text that is no optimizer.
    pub fn free(text: &str) -> Result<String> {
        let space = Self::of(&optim::by_name(text)?);
        let mut free = SpecText::of(text).without_blanks();
        for (searched, _) in &space.intervals {
            free.remove(searched);
        }
        Ok(free.to_string())
    }

    /// The rule of trial `index`: `rule` with the values of the sequence's point.
    ///
    /// # Errors
    /// A value that the hyperparameter does not allow.
    pub fn point(&self, rule: &AnyRule, index: usize) -> Result<AnyRule> {
        let mut rule = rule.clone();
        for (dimension, (key, interval)) in self.intervals.iter().enumerate() {
            let share = f64::from(sobol_burley::sample(index as u32, dimension as u32, 0));
            // Three digits are as good, and can be read and typed again.
            let value: f64 = format!("{:.2e}", interval.at(share)).parse().expect("a number prints as a number");
            // Rounding may pass the end of the interval, where the rule may not accept the value.
            rule.set(key, value.clamp(interval.low, interval.high).into())?;
        }
        Ok(rule)
    }

    /// What `rule` has for the hyperparameters that are searched, as text.
    pub fn values(&self, rule: &AnyRule) -> String {
        let value = |(key, _): &(String, Interval)| match rule.field(key) {
            Some(value) => format!("{key}={}", number(value.into())),
            None => key.clone(),
        };
        self.intervals.iter().map(value).collect::<Vec<_>>().join(",")
    }

    /// The hyperparameters of `rule` that are so near an end of their interval that a better value may lie outside.
    pub fn at_edge(&self, rule: &AnyRule) -> Vec<String> {
        let is_at_edge = |(key, Interval { low, high }): &&(String, Interval)| {
            let value = rule.field(key).map_or(f64::NAN, f64::from);
            low < high && !(0.05..0.95).contains(&((value / low).ln() / (high / low).ln()))
        };
        self.intervals.iter().filter(is_at_edge).map(|(key, _)| key.clone()).collect()
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.intervals))
    }
}

/// Whether the optimizer `text` gives `key` a value.
pub fn gives(text: &str, key: &str) -> bool {
    SpecText::of(text).get(key).is_some()
}

/// The bounds `LOW..HIGH`, or `VALUE`, of `key`; none where they are no interval.
fn parse_interval(key: &str, bounds: &str) -> Option<Interval> {
    let (low, high) = bounds.split_once("..").unwrap_or((bounds, bounds));
    let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    let is_point = low == high && low >= 0.0;
    (!key.is_empty() && high.is_finite() && (is_point || (low > 0.0 && low < high))).then_some(Interval { low, high })
}

fn no_interval(text: &str, pair: &str) -> anyhow::Error {
    anyhow!("space `{text}`: `{pair}` must be KEY=LOW..HIGH with 0 < LOW < HIGH, or KEY=VALUE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tune::MOST;

    fn rule(text: &str) -> AnyRule {
        optim::by_name(text).unwrap()
    }

    #[test]
    fn every_rule_has_a_space_whose_points_it_accepts() {
        for spec in optim::rules::specs() {
            let rule = rule(spec.name);
            let space = Space::of(&rule);
            let mut lrs = Vec::new();
            for index in 0..64 {
                let point = space.point(&rule, index).unwrap();
                point.validate().unwrap();
                lrs.push(f64::from(point.get("lr").unwrap()));
            }
            // A quasi-random sequence of 64 points leaves no sixteenth of the interval empty.
            let interval = space.intervals[0].1;
            let sixteenth = |lr: f64| ((lr / interval.low).ln() / (interval.high / interval.low).ln() * 16.0) as usize;
            let mut hit = [false; 16];
            lrs.iter().for_each(|lr| hit[sixteenth(*lr).min(15)] = true);
            assert!(hit.iter().all(|hit| *hit), "{}: {lrs:?}", spec.name);
        }
        assert_eq!(Space::of(&rule("sam:base=lion")), Space::of(&rule("lion")));
        assert_eq!(Space::of(&rule("adamw")).to_string(), "lr=1e-5..0.01,weight_decay=0.01..0.1");
    }

    #[test]
    fn rules_are_searched_on_equal_terms() {
        let lr = |name: &str| Space::of(&rule(name)).intervals[0].1;
        for spec in optim::rules::specs() {
            let Interval { low, high } = lr(spec.name);
            // What finds its step size by itself is searched around 1.
            let decades = if spec.name == "prodigy" { 1.0 } else { 3.0 };
            assert!(((high / low).log10() - decades).abs() < 1e-9, "{}: {low} to {high} is not 3 decades", spec.name);
            for (key, Interval { low, high }) in &Space::of(&rule(spec.name)).intervals[1..] {
                assert!(low == high || ((high / low).log10() - 1.0).abs() < 1e-9, "{}: {key}", spec.name);
            }
        }
        // An update of each of these is about lr per element.
        for name in ["adam", "amsgrad", "adamw", "adamax", "nadam", "radam", "adabelief", "laprop", "stable_adamw"] {
            assert_eq!(lr(name), lr("rmsprop"), "{name}");
        }
    }

    #[test]
    fn what_a_user_gave_is_not_searched() {
        let space = |text: &str, given: &[&str]| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            Space::choose(text, &rule(text), &given).unwrap()
        };
        for (text, given, expected) in [
            ("adamw", &[][..], "lr=1e-5..0.01,weight_decay=0.01..0.1"),
            ("adamw:weight_decay=0.3", &[], "lr=1e-5..0.01"),
            ("adam:weight_decay=1e-2", &[], "lr=1e-5..0.01"),
            ("adamw:beta2=0.95, lr=1e-3", &[], "weight_decay=0.01..0.1"),
            ("AdamW:Weight-Decay=0.3", &[], "lr=1e-5..0.01"),
            ("sam:base=adamw,lr=1e-3", &[], "weight_decay=0.01..0.1"),
            ("adam:weight_decay=0", &["Adam:lr=1e-4..1e-2"], "lr=1e-4..0.01"),
            ("adam:weight_decay=0", &["adam:lr=1e-4..1e-2"], "lr=1e-4..0.01"),
            ("adam:beta2=0.9", &["adam:lr=1e-4..1e-2,beta2=0.9..0.99"], "lr=1e-4..0.01"),
        ] {
            let space = space(text, given);
            assert_eq!(space.to_string(), expected, "{text} {given:?}");
            assert!(space.is_searchable());
            let given = rule(text);
            let tried = space.point(&given, 3).unwrap();
            for pair in text.split_once(':').map_or("", |(_, pairs)| pairs).split(',') {
                let key = pair.split('=').next().unwrap().trim();
                assert_eq!(tried.field(key), given.field(key), "{text}: {key}");
            }
        }
        for (text, given) in [("adam:lr=1", &[][..]), ("adamw:lr=1,weight_decay=0", &[]), ("sgd", &["sgd:lr=1"])] {
            assert!(!space(text, given).is_searchable(), "{text}");
        }
        for (text, free) in [
            ("adamw:lr=2e-3", "adamw"),
            ("sgd:lr=0.05,momentum=0.9", "sgd:momentum=0.9"),
            ("adamw:beta2=0.99", "adamw:beta2=0.99"),
            ("lion", "lion"),
        ] {
            assert_eq!(Space::free(text).unwrap(), free);
        }
    }

    #[test]
    fn points_are_the_same_share_of_every_space() {
        let (a, b) = (rule("sgd"), rule("adam"));
        for index in 0..8 {
            let share = |rule: &AnyRule, space: &Space| {
                let lr = f64::from(space.point(rule, index).unwrap().get("lr").unwrap());
                let Interval { low, high } = space.intervals[0].1;
                (lr / low).ln() / (high / low).ln()
            };
            assert!((share(&a, &Space::of(&a)) - share(&b, &Space::of(&b))).abs() < 2e-3);
        }
    }

    #[test]
    fn a_given_space_replaces_the_default_of_its_rule() {
        let given = ["adam:lr=1e-3..1e-1,beta2=0.9..0.99".to_owned(), "sgd:lr=1".to_owned()];
        let space = Space::choose("adam", &rule("adam"), &given).unwrap();
        assert_eq!(space.to_string(), "lr=0.001..0.1,beta2=0.9..0.99");
        assert_eq!(Space::choose("lion", &rule("lion"), &given).unwrap(), Space::of(&rule("lion")));
        let sgd = Space::choose("sgd", &rule("sgd"), &given).unwrap();
        assert_eq!(f64::from(sgd.point(&rule("sgd"), 5).unwrap().get("lr").unwrap()), 1.0);
        let near_one = Space::choose("adam", &rule("adam"), &["adam:beta2=0.9998..0.9999".to_owned()]).unwrap();
        assert_eq!(f64::from(near_one.point(&rule("adam"), MOST - 1).unwrap().get("beta2").unwrap()), 0.9999);
        for (text, at_edge) in [
            ("adam:lr=1.1e-3,beta2=0.95", &["lr"][..]),
            ("adam:lr=1e-2,beta2=0.95", &[]),
            ("adam:lr=9.9e-2,beta2=0.9", &["lr", "beta2"]),
            // The ends belong to the space.
            ("adam:lr=1e-1,beta2=0.95", &["lr"]),
        ] {
            assert_eq!(space.at_edge(&rule(text)), at_edge, "{text}");
        }
        for (text, parts) in [
            ("adam", &["adam", "KEY=LOW..HIGH"][..]),
            ("adamm:lr=1..2", &["`adamm`", "did you mean `adam`?"]),
            ("adam:lr=2..1", &["lr=2..1", "LOW < HIGH"]),
            ("adam:lr=0..1", &["lr=0..1"]),
            ("adam:lr=-1", &["lr=-1"]),
            ("adam:lr=1e-3..1e-2,lr=1e-5..1e-4", &["`lr` is given twice"]),
            ("adam:beta3=0.1..0.2", &["beta3", "did you mean `beta2`?"]),
            ("adam:beta1=0.5..1.5", &["beta1", "1.5"]),
            ("sgd:nesterov=0.5..1", &["`sgd:nesterov=0.5..1`", "`nesterov` is true or false", "--opt"]),
            ("adam:cautious=0.5..1", &["`cautious` is true or false", "--opt"]),
            ("sgd:Nesterov=true", &["`nesterov` is true or false", "--opt"]),
        ] {
            let message = format!("{:#}", Space::choose("adam", &rule("adam"), &[text.to_owned()]).unwrap_err());
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }
}
