//! The largest learning rates that are stable, with warmup and without.

use super::{
    facet::{Facet, Member, aspect},
    group::ReportGroup,
    number,
    problem::Problem,
    samples::{PARTS, loss, smoothed, training},
};
use std::{cmp::Ordering, collections::BTreeMap};

/// A trial that ends above the least of its training loss by more than this share of the loss of a constant prediction has lost what it
/// had learned.
const LOST: f64 = 0.1;

/// A trial is worse than one at a smaller learning rate where it learned less by more than this share of what that one learned.
const WORSE: f64 = 0.1;

/// But by more than this share of the loss of a constant prediction: of nothing learned any share is noise.
const LEAST_WORSE: f64 = 0.01;

/// A trial is too slow where it learned less than this share of what the best group of its sweep learned.
const SLOW: f64 = 0.8;

/// What is stable, for readers.
pub const DEFINITION: &str = "A trial is stable here unless it diverged; or lost what it had learned: its training loss, averaged over 60 equal parts of the run, ends \
    above the least of them by more than 10 % of the loss of the best constant prediction (the entropy of the classes' shares in the test data); or is worse \
    than a smaller learning rate: of the drop from the loss of that prediction, which a smaller peak reached on the same side with the same seed, its test loss \
    at the end lacks more than 10 %, and more than 1 % of the loss of that prediction. A stable trial is too slow if its drop is less than 80 % of that of the best group of its setting, with warmup or \
    without: that is no instability.";

/// Groups that differ in their peak and in warmup alone.
#[derive(Clone, Debug)]
pub struct Sweep<'s, 'a> {
    /// What sets it apart: the place of the norms, the optimizer.
    pub title: String,
    /// Without warmup, by peak.
    pub without: Vec<Peak<'s, 'a>>,
    /// With warmup, by peak.
    pub with: Vec<Peak<'s, 'a>>,
}

/// A peak learning rate that was tried.
#[derive(Clone, Debug)]
pub struct Peak<'s, 'a> {
    /// The learning rate.
    pub lr: f64,
    /// The group that was trained with it.
    pub group: &'s ReportGroup<'a>,
    /// By seed.
    verdicts: BTreeMap<u64, Verdict>,
}

/// How a trial at a peak went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It learned.
    Stable,
    /// It is stable, and would learn more at a larger learning rate.
    TooSlow,
    /// A smaller learning rate reached more.
    Worse,
    /// It lost what it had learned.
    Lost,
    /// Its loss left the finite numbers or the limit.
    Diverged,
}

impl Verdict {
    /// All, in the order of a cell.
    pub const ALL: [Self; 5] = [Self::Stable, Self::TooSlow, Self::Worse, Self::Lost, Self::Diverged];

    /// Whether it speaks for the learning rate.
    pub fn is_stable(self) -> bool {
        matches!(self, Self::Stable | Self::TooSlow)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::TooSlow => "too slow",
            Self::Worse => "worse than a smaller rate",
            Self::Lost => "lost what it had learned",
            Self::Diverged => "diverged",
        }
    }
}

impl Peak<'_, '_> {
    /// Whether the trial of every seed is stable.
    pub fn is_stable(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.values().all(|verdict| verdict.is_stable())
    }

    /// Whether the trial of every seed is stable, and none too slow.
    pub fn learns(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.values().all(|verdict| *verdict == Verdict::Stable)
    }

    /// How its trials went, in words: `stable`, or `2 of 3 stable, 1 diverged`.
    pub fn in_words(&self) -> String {
        let n = self.verdicts.len();
        let counts =
            Verdict::ALL.map(|verdict| (verdict, self.verdicts.values().filter(|own| **own == verdict).count()));
        let some = counts.into_iter().filter(|(_, count)| *count > 0).enumerate();
        let words = some.map(|(place, (verdict, count))| match (count, place) {
            _ if count == n => verdict.name().to_owned(),
            (count, 0) => format!("{count} of {n} {}", verdict.name()),
            (count, _) => format!("{count} {}", verdict.name()),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// The largest peak of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The learning rate.
    pub lr: f64,
    /// Whether it is the largest that was tried, so that the limit lies there or higher.
    is_open: bool,
}

impl Limit {
    /// The limit as a cell shows it.
    pub fn in_table(self) -> String {
        format!("{}{}", if self.is_open { "≥ " } else { "" }, number::setting(self.lr))
    }

    /// The limit as a sentence tells it.
    pub fn in_words(self) -> String {
        format!("{}{}", number::setting(self.lr), if self.is_open { " or more" } else { "" })
    }
}

/// By how much warmup raises a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The limit with warmup over that without.
    pub times: f64,
    /// How the true ratio may lie: where the limit with warmup is open it is this or greater, without warmup this or less.
    bound: Ordering,
}

impl Ratio {
    /// None where a side has no limit, or both are open: then nothing is known.
    fn of([without, with]: [Option<Limit>; 2]) -> Option<Self> {
        let (without, with) = without.zip(with)?;
        let bound = match (without.is_open, with.is_open) {
            (false, false) => Ordering::Equal,
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (true, true) => return None,
        };
        Some(Self { times: with.lr / without.lr, bound })
    }

    /// The ratio as cells and sentences show it.
    pub fn text(self) -> String {
        let sign = match self.bound {
            Ordering::Equal => "",
            Ordering::Greater => "≥ ",
            Ordering::Less => "≤ ",
        };
        format!("{sign}{} ×", number::setting((self.times * 100.0).round() / 100.0))
    }
}

/// The last peak of `side` that is stable as are all smaller ones. What is stable above an unstable one was lucky.
fn last_stable<'t, 's, 'a>(
    side: &'t [Peak<'s, 'a>],
    is_stable: impl Fn(&Peak<'s, 'a>) -> bool,
) -> Option<(&'t Peak<'s, 'a>, Limit)> {
    let peak = side.iter().take_while(|peak| is_stable(peak)).last()?;
    let is_open = side.last().is_some_and(|last| last.lr == peak.lr);
    Some((peak, Limit { lr: peak.lr, is_open }))
}

impl<'s, 'a> Sweep<'s, 'a> {
    /// The sweeps of `problem` in the order of their first groups.
    pub fn all(problem: &Problem<'s, 'a>) -> Vec<Self> {
        let aspects = |group: &ReportGroup| {
            let factors = ["norm", "optimizer"];
            let named = factors.map(|name| group.factor(name).map(|value| aspect(name, &value)));
            named.into_iter().flatten().collect::<Vec<_>>().join(", ")
        };
        let mut sweeps: Vec<Self> = Vec::new();
        for &group in &problem.groups {
            let lr = group.factor("peak").and_then(|lr| lr.parse::<f64>().ok());
            let (Some(lr), Some(warmup)) = (lr, group.factor("warmup")) else { continue };
            let peak = Peak { lr, group, verdicts: BTreeMap::new() };
            let title = aspects(group);
            let place = sweeps.iter().position(|sweep| sweep.title == title).unwrap_or_else(|| {
                sweeps.push(Self { title, without: Vec::new(), with: Vec::new() });
                sweeps.len() - 1
            });
            let side = if warmup == "yes" { &mut sweeps[place].with } else { &mut sweeps[place].without };
            side.push(peak);
        }
        sweeps.iter_mut().for_each(Self::judge);
        sweeps
    }

    /// Sorts the peaks and judges their trials.
    fn judge(&mut self) {
        let all = || self.without.iter().chain(&self.with);
        let ended = all().filter(|peak| peak.group.summary.diverged == 0);
        let best = ended.filter_map(|peak| peak.group.summary.loss.mean).fold(f64::INFINITY, f64::min);
        for side in [&mut self.without, &mut self.with] {
            side.sort_by(|a, b| a.lr.total_cmp(&b.lr));
            // The least loss of smaller peaks, by seed.
            let mut least: BTreeMap<u64, f64> = BTreeMap::new();
            for peak in side {
                let constant = peak.group.workload.map_or(f64::NEG_INFINITY, |workload| workload.constant_loss);
                let steps = peak.group.steps();
                for trial in &peak.group.finals {
                    let seed = trial.record.config.seed;
                    let losses = smoothed(&training(trial.metrics, loss), steps, PARTS);
                    let losses: Vec<f64> = losses.iter().map(|part| part.value).collect();
                    let least = least.entry(seed).or_insert(f64::INFINITY);
                    let verdict = match trial.final_loss() {
                        None => Verdict::Diverged,
                        Some(_) if has_risen(&losses, LOST * constant) => Verdict::Lost,
                        Some(loss)
                            if loss > *least + (WORSE * (constant - *least)).max(LEAST_WORSE * constant).max(0.0) =>
                        {
                            Verdict::Worse
                        }
                        Some(loss) if best < constant && constant - loss < SLOW * (constant - best) => Verdict::TooSlow,
                        Some(_) => Verdict::Stable,
                    };
                    *least = trial.final_loss().map_or(*least, |loss| loss.min(*least));
                    peak.verdicts.insert(seed, verdict);
                }
            }
        }
    }

    /// The largest peaks without warmup and with it that are stable for every seed, with their groups.
    pub fn largest(&self) -> [Option<(&Peak<'s, 'a>, Limit)>; 2] {
        [&self.without, &self.with].map(|side| last_stable(side, Peak::is_stable))
    }

    /// The seeds that each peak was tried with.
    fn seeds(&self) -> Vec<u64> {
        let mut all = self.without.iter().chain(&self.with);
        let Some(first) = all.next() else { return Vec::new() };
        let is_everywhere = |seed: &u64| all.clone().all(|peak| peak.verdicts.contains_key(seed));
        first.verdicts.keys().copied().filter(is_everywhere).collect()
    }

    /// The largest stable peak with each seed alone: without warmup, and with it.
    pub fn by_seed(&self) -> Vec<[Option<Limit>; 2]> {
        let of = |seed: &u64| {
            let is_stable = |peak: &Peak| peak.verdicts[seed].is_stable();
            [&self.without, &self.with].map(|side| Some(last_stable(side, is_stable)?.1))
        };
        self.seeds().iter().map(of).collect()
    }

    /// By how much warmup raised the largest stable peak: for all seeds together, and for each on its own in words.
    pub fn ratios(&self) -> (Option<Ratio>, Option<String>) {
        let together = self.largest().map(|limit| limit.map(|(_, limit)| limit));
        let by_seed: Vec<Option<Ratio>> = self.by_seed().into_iter().map(Ratio::of).collect();
        (Ratio::of(together), counted(by_seed))
    }
}

/// Whether the last of some numbers is above the least by more than `rise`; a number that is not one is.
fn has_risen(numbers: &[f64], rise: f64) -> bool {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    numbers.last().is_some_and(|last| last.is_nan() || *last > least + rise)
}

/// The ratios with how many seeds have each, in words; none for fewer than two.
fn counted(mut ratios: Vec<Option<Ratio>>) -> Option<String> {
    let n = ratios.len();
    // What is not known comes last.
    let key =
        |ratio: &Option<Ratio>| ratio.map_or((f64::INFINITY, Ordering::Equal), |ratio| (ratio.times, ratio.bound));
    ratios.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then(key(a).1.cmp(&key(b).1)));
    let text = |ratio: &Option<Ratio>| ratio.map_or("unknown".to_owned(), Ratio::text);
    let groups: Vec<(String, usize)> =
        ratios.chunk_by(|a, b| a == b).map(|same| (text(&same[0]), same.len())).collect();
    match groups.as_slice() {
        _ if n < 2 => None,
        [(text, _)] => Some(format!("{text} with each of {n} seeds")),
        groups => {
            let texts: Vec<String> = groups.iter().map(|(text, count)| format!("{text} with {count}")).collect();
            Some(format!("{} of {n} seeds", texts.join(", ")))
        }
    }
}

/// Whether `facet` is at the largest peak that is stable with warmup, or without: where warmup matters most.
pub fn is_at_the_limit(sweeps: &[Sweep], facet: &Facet) -> bool {
    let at_limit = |member: &Member| {
        let limits = sweeps.iter().flat_map(|sweep| sweep.largest()).flatten();
        limits.into_iter().any(|(peak, _)| peak.group.is(member.group))
    };
    facet.members.iter().any(at_limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_names_the_numbers_that_are_used() {
        for part in [
            format!("by more than {} % of the loss of the best constant prediction", LOST * 100.0),
            format!("lacks more than {} %, and more than {} % of", WORSE * 100.0, LEAST_WORSE * 100.0),
            format!("less than {} % of that of the best group", SLOW * 100.0),
            format!("averaged over {PARTS} equal parts"),
        ] {
            assert!(DEFINITION.contains(&part), "{part}");
        }
    }

    #[test]
    fn a_ratio_says_on_which_side_a_limit_is_open() {
        let limit = |lr: f64, is_open| Some(Limit { lr, is_open });
        for (without, with, expected) in [
            (limit(1e-3, false), limit(1e-2, false), "10 ×"),
            (limit(1e-3, false), limit(1e-2, true), "≥ 10 ×"),
            (limit(1e-2, true), limit(1e-3, false), "≤ 0.1 ×"),
            (limit(1e-2, false), limit(1e-2, false), "1 ×"),
            (limit(1e-2, true), limit(1e-2, true), "unknown"),
            (None, limit(1e-2, false), "unknown"),
            (limit(1e-2, false), None, "unknown"),
        ] {
            let text = Ratio::of([without, with]).map_or("unknown".to_owned(), Ratio::text);
            assert_eq!(text, expected, "{without:?} {with:?}");
        }
        let ratio = |times: f64, bound| Some(Ratio { times, bound });
        let (exact, more) = (ratio(10.0, Ordering::Equal), ratio(10.0, Ordering::Greater));
        for (ratios, expected) in [
            (vec![], None),
            (vec![exact], None),
            (vec![exact; 3], Some("10 × with each of 3 seeds")),
            (vec![None, None], Some("unknown with each of 2 seeds")),
            (vec![None, more, exact, more], Some("10 × with 1, ≥ 10 × with 2, unknown with 1 of 4 seeds")),
        ] {
            assert_eq!(counted(ratios.clone()).as_deref(), expected, "{ratios:?}");
        }
    }

    #[test]
    fn what_ends_above_its_least_has_risen_and_a_spike_that_recovers_has_not() {
        for (losses, expected) in [
            (&[2.0, 1.5, 1.0, 0.9][..], false),
            (&[2.0, 1.0, 1.1, 0.9], false),
            (&[2.0, 1.0, 1.6, 0.9], false),
            (&[2.0, 1.0, 1.0, 1.3], true),
            // Slowly, but far from the least.
            (&[1.0, 1.15, 1.3], true),
            (&[1.0, f64::NAN, 1.0], false),
            (&[1.0, f64::NAN], true),
            (&[1.0, f64::INFINITY], true),
            (&[], false),
        ] {
            assert_eq!(has_risen(losses, 0.2), expected, "{losses:?}");
        }
    }
}
