//! The space of hyperparameters that a group is searched in, and the points of it that are tried.

use crate::{config::names::number, record::summary::Searched};
use anyhow::{Result, anyhow, bail};
use optim::{
    AnyRule, Rule,
    rule::Options,
    text::{PairError, SpecText, same_name},
};
use std::fmt;

/// The values of a hyperparameter that are searched, at equal density per decade.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// The hyperparameter.
    pub key: String,
    /// The least value above 0.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// Whether 0 is a choice too.
    pub has_zero: bool,
    /// Whether it grows where the best value lies at an end: not one that a user gave.
    pub grows: bool,
}

/// How far a search looks from what is usual for a hyperparameter, to either side: a factor.
const SEARCHED: [(&str, f64); 2] = [("lr", 100.0), ("weight_decay", 10.0)];

/// How far an interval grows at a time.
const DECADE: f64 = 10.0;

/// The share of the spread points that are 0, where that is a choice.
const ZEROS: f64 = 0.25;

impl Interval {
    fn new(key: &str, low: f64, high: f64) -> Self {
        Self { key: key.to_owned(), low: rounded(low), high: rounded(high), has_zero: false, grows: false }
    }

    /// The value at `share` of the way from low to high, on a logarithmic scale; the one value where they are the same.
    fn at(&self, share: f64) -> f64 {
        let share = if self.has_zero { (share - ZEROS) / (1.0 - ZEROS) } else { share };
        if share < 0.0 {
            0.0
        } else if self.low == self.high {
            self.low
        } else {
            between(self.low, self.high, share).clamp(self.low, self.high)
        }
    }

    fn is_searchable(&self) -> bool {
        self.low < self.high || self.has_zero
    }
}

/// What lies at `share` of the way from `low` to `high`, on a logarithmic scale. Three digits are as good, and can be read and typed
/// again.
fn between(low: f64, high: f64, share: f64) -> f64 {
    let value = (low.ln() + share * (high.ln() - low.ln())).exp();
    format!("{value:.2e}").parse().expect("a number prints as a number")
}

/// Where the parabola through the logarithms of three points, the middle one the lowest, is lowest; none where a number is no positive one, or
/// that is within a tenth of the way to a neighbour.
fn lowest_of_parabola(points: [(f64, f64); 3]) -> Option<f64> {
    if points.iter().any(|(x, y)| !(*x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite())) {
        return None;
    }
    let [(a, fa), (b, fb), (c, fc)] = points.map(|(x, y)| (x.ln(), y.ln()));
    let (left, right) = (b - a, c - b);
    let (above_left, above_right) = (fa - fb, fc - fb);
    let from_middle =
        0.5 * (above_left * right * right - above_right * left * left) / (above_left * right + above_right * left);
    let way = if from_middle > 0.0 { right } else { left };
    // Also NaN, of three that are equal.
    (from_middle.abs() > 0.1 * way).then(|| between(points[1].0, points[2].0, from_middle / right))
}

/// A tenth of 1e-5 is not 1e-6 by the last bit, which nobody would write.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().expect("a number prints as a number")
}

/// What is searched for a group: intervals of hyperparameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    intervals: Vec<Interval>,
}

impl Space {
    /// The default space of `rule`, by one rule for all: four decades of learning rates around the usual one, and two of weight decays, or
    /// 0; what of them it has.
    pub fn of(rule: &AnyRule) -> Self {
        let interval = |(key, factor): (&str, f64)| {
            let usual = rule.usual(key).filter(|usual| *usual > 0.0)?;
            let interval = Interval::new(key, usual / factor, usual * factor);
            Some(Interval { has_zero: key == "weight_decay", grows: true, ..interval })
        };
        Self { intervals: SEARCHED.into_iter().filter_map(interval).collect() }
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
                parse_interval(key, bounds).ok_or_else(|| no_interval(text, &format!("{key}={bounds}")))
            });
            let intervals = intervals.collect::<Result<Vec<_>>>()?;
            if intervals.is_empty() {
                bail!("space `{text}`: it must be NAME:KEY=LOW..HIGH,.., as in `adamw:lr=1e-4..1e-2`");
            }
            if named == rule.spec().name {
                for interval in &intervals {
                    let zero = interval.has_zero.then_some(0.0);
                    for value in [interval.low, interval.high].into_iter().chain(zero) {
                        rule.clone().set(&interval.key, value.into())?;
                    }
                }
                chosen = Self { intervals };
            }
        }
        chosen.intervals.retain(|interval| !gives(text, &interval.key));
        Ok(chosen)
    }

    /// Whether there is anything to search: an interval of more than one value.
    pub fn is_searchable(&self) -> bool {
        self.intervals.iter().any(Interval::is_searchable)
    }

    /// The optimizer `text` without the values of what the default space of its rule searches, so that tuning chooses them.
    ///
    /// # Errors
    /// A text that is no optimizer.
    pub fn free(text: &str) -> Result<String> {
        let space = Self::of(&optim::by_name(text)?);
        let mut free = SpecText::of(text).without_blanks();
        for searched in &space.intervals {
            free.remove(&searched.key);
        }
        Ok(free.to_string())
    }

    /// `rule` with the values of point `index` of a quasi-random sequence (Sobol's with Owen's scrambling), which is spread over the space.
    ///
    /// # Errors
    /// A value that the hyperparameter does not allow.
    pub fn spread(&self, rule: &AnyRule, index: usize) -> Result<AnyRule> {
        let mut rule = rule.clone();
        for (dimension, interval) in self.intervals.iter().enumerate() {
            let share = f64::from(sobol_burley::sample(index as u32, dimension as u32, 0));
            rule.set(&interval.key, interval.at(share).into())?;
        }
        Ok(rule)
    }

    /// The two points of round `round`, from 0, around the best of those that were `tried`, with their losses: none where a trial
    /// diverged. Both are next to it in the first hyperparameter that is searched; from the second round on the other one is in another,
    /// where there is one, each in its turn. The more promising comes first.
    ///
    /// # Errors
    /// A value that the hyperparameter does not allow.
    pub fn around_best(&mut self, tried: &[(AnyRule, Option<f64>)], round: usize) -> Result<Vec<AnyRule>> {
        let searched: Vec<usize> = (0..self.intervals.len()).filter(|at| self.intervals[*at].is_searchable()).collect();
        let Some((first, others)) = searched.split_first() else { return Ok(Vec::new()) };
        let mut points = self.next_to_best(tried, *first)?;
        if let Some(turn) = round.checked_sub(1).filter(|_| !others.is_empty()) {
            points.truncate(1);
            points.extend(self.next_to_best(tried, others[turn % others.len()])?.into_iter().take(1));
        }
        Ok(points)
    }

    /// The two points half way from the best to its neighbours in one hyperparameter, the more promising first. Where it has no neighbour on
    /// a side, the end of the interval is one, which grows to a decade from it. Where 0 is a choice it goes before both. Where the losses of both neighbours are known,
    /// the first point is the lowest of the parabola through the three (of logarithms), unless that is next to the best itself.
    fn next_to_best(&mut self, tried: &[(AnyRule, Option<f64>)], at: usize) -> Result<Vec<AnyRule>> {
        let loss = |trial: &&(AnyRule, Option<f64>)| trial.1.unwrap_or(f64::INFINITY);
        let Some(trial) = tried.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))) else { return Ok(Vec::new()) };
        let (best, least) = (&trial.0, loss(&trial));
        let mut interval = self.intervals[at].clone();
        let key = interval.key.clone();
        let value = |rule: &AnyRule| rule.field(&key).map_or(f64::NAN, f64::from);
        let x = value(best);
        // Neighbours with the loss of the best trial there.
        let nearest = |is_side: &dyn Fn(f64) -> bool, sign: f64| {
            let there = tried.iter().filter(|(rule, _)| is_side(value(rule)) && value(rule) > 0.0);
            let distance = |trial: &&(AnyRule, Option<f64>)| sign * value(&trial.0);
            let near = there.min_by(|a, b| distance(a).total_cmp(&distance(b)).then(loss(a).total_cmp(&loss(b))))?;
            Some((value(&near.0), loss(&near)))
        };
        let (below, above) = (nearest(&|y| y < x, -1.0), nearest(&|y| y > x, 1.0));
        let allows = |value: f64| best.clone().set(&key, value.into()).is_ok();
        if interval.grows && x > 0.0 {
            if below.is_none() && !interval.has_zero && allows(x / DECADE) {
                interval.low = interval.low.min(rounded(x / DECADE));
            }
            if above.is_none() && allows(x * DECADE) {
                interval.high = interval.high.max(rounded(x * DECADE));
            }
        }
        // What was not tried promises most.
        let side = |neighbour: Option<(f64, f64)>, end: f64| neighbour.unwrap_or((end, f64::NEG_INFINITY));
        let (below, above) = (side(below, interval.low), side(above, interval.high));
        let mut points = if x > 0.0 {
            vec![(between(below.0, x, 0.5), below.1), (between(x, above.0, 0.5), above.1)]
        } else {
            vec![(between(interval.low, above.0, 0.5), above.1), (interval.low, above.1)]
        };
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        if let Some(lowest) = lowest_of_parabola([below, (x, least), above]) {
            points[0] = (lowest, f64::NEG_INFINITY);
        }
        // Whether it is of any use, before how much of it.
        let is_zero_new = tried.iter().all(|(rule, _)| value(rule) != 0.0 || differs_elsewhere(rule, best, &key));
        if interval.has_zero && x > 0.0 && is_zero_new {
            points.insert(0, (0.0, f64::NEG_INFINITY));
        }
        let rule = |(value, _): (f64, f64)| {
            let mut rule = best.clone();
            rule.set(&key, value.into())?;
            Ok(rule)
        };
        let points = points.into_iter().take(2).map(rule).collect();
        self.intervals[at] = interval;
        points
    }

    /// What `rule` has for the hyperparameters that are searched, as text.
    pub fn values(&self, rule: &AnyRule) -> String {
        let value = |Interval { key, .. }: &Interval| match rule.field(key) {
            Some(value) => format!("{key}={}", number(value.into())),
            None => key.clone(),
        };
        self.intervals.iter().map(value).collect::<Vec<_>>().join(",")
    }

    /// What was searched, and of what was picked what lies at an edge.
    pub fn searched(&self, picked: &AnyRule) -> Searched {
        Searched { space: self.to_string(), at_edge: self.at_edge(picked) }
    }

    /// The hyperparameters of `rule` that are so near an end of their interval that a better value may lie outside.
    pub fn at_edge(&self, rule: &AnyRule) -> Vec<String> {
        let is_at_edge = |Interval { key, low, high, has_zero, .. }: &&Interval| {
            let value = rule.field(key).map_or(f64::NAN, f64::from);
            let share = (value / low).ln() / (high / low).ln();
            // Below the least is 0, where that is a choice.
            low < high && !(if *has_zero { f64::NEG_INFINITY } else { 0.05 }..0.95).contains(&share)
        };
        self.intervals.iter().filter(is_at_edge).map(|interval| interval.key.clone()).collect()
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |Interval { key, low, high, has_zero, .. }: &Interval| {
            let zero = if *has_zero { "0|" } else { "" };
            let [low_text, high_text] = [*low, *high].map(number);
            if low == high { format!("{key}={zero}{low_text}") } else { format!("{key}={zero}{low_text}..{high_text}") }
        };
        f.write_str(&self.intervals.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

/// Whether two rules differ in another hyperparameter than `key`.
fn differs_elsewhere(rule: &AnyRule, other: &AnyRule, key: &str) -> bool {
    rule.hyperparameters().iter().any(|own| own.name != key && rule.field(own.name) != other.field(own.name))
}

/// Whether the optimizer `text` gives `key` a value.
pub fn gives(text: &str, key: &str) -> bool {
    SpecText::of(text).get(key).is_some()
}

/// The bounds `LOW..HIGH`, or `VALUE`, of `key`, behind `0|` where 0 is a choice too; none where they are no interval.
fn parse_interval(key: &str, bounds: &str) -> Option<Interval> {
    let (has_zero, bounds) = bounds.strip_prefix("0|").map_or((false, bounds), |bounds| (true, bounds));
    let (low, high) = bounds.split_once("..").unwrap_or((bounds, bounds));
    let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    let is_point = low == high && low >= 0.0;
    let is_interval = !key.is_empty() && high.is_finite() && (is_point || (low > 0.0 && low < high));
    is_interval.then(|| Interval { key: key.to_owned(), low, high, has_zero, grows: false })
}

fn no_interval(text: &str, pair: &str) -> anyhow::Error {
    anyhow!("space `{text}`: `{pair}` must be KEY=LOW..HIGH with 0 < LOW < HIGH, 0|LOW..HIGH, or KEY=VALUE")
}

#[cfg(test)]
mod tests;
