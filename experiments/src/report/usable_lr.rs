//! The largest learning rates that are usable and stable, with warmup and without.

use super::{
    facet::{Facet, Member, aspect},
    group::{ReportGroup, Trial},
    number,
    problem::Problem,
    samples::{PARTS, loss, smoothed, training},
};
use std::{cmp::Ordering, collections::BTreeMap};

/// A usable trial keeps at least this share of what the best group of its sweep learned.
const USABLE_SHARE: f64 = 0.8;

/// The training loss of a stable trial never rises by more than this share of the loss of a constant prediction.
const LARGEST_RISE: f64 = 0.1;

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
    /// By seed, whether it meets each [`Criterion`].
    meets: BTreeMap<u64, [bool; 2]>,
}

/// What a learning rate may be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// It learns nearly as much as any.
    Usable,
    /// Its training loss does not blow up, whatever it learns.
    Stable,
}

impl Criterion {
    /// Both criteria, in the order of the page.
    pub const ALL: [Self; 2] = [Self::Usable, Self::Stable];

    /// What a learning rate is then called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Stable => "stable",
        }
    }

    /// What it is, for readers.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Usable => {
                "A trial is usable here if it did not diverge and its test loss at the end keeps at least 80 % of what the best group of its \
                 setting learned, with warmup or without: the drop from the loss of the best constant prediction (the entropy of the \
                 classes' shares in the test data) to that group's mean. So a better learning rate among those tried can make others \
                 unusable, and one that learns slowly is unusable, however steady."
            }
            Self::Stable => {
                "A trial is stable here if it did not diverge and its training loss, averaged over 60 equal parts of the run, is in no part \
                 above the least before it by more than 10 % of the loss of the best constant prediction. So a run that spikes and \
                 recovers is not stable, and one that learns little may be."
            }
        }
    }
}

impl Peak<'_, '_> {
    /// Whether the trial of every seed is.
    pub fn is(&self, criterion: Criterion) -> bool {
        !self.meets.is_empty() && self.count(criterion) == self.meets.len()
    }

    /// Of how many seeds the trial is.
    pub fn count(&self, criterion: Criterion) -> usize {
        self.meets.values().filter(|meets| meets[criterion as usize]).count()
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

/// The last peak of `side` that is good as are all smaller ones, down to the first that is. What is below that learned too
/// slowly, and what is good above a bad one was lucky.
fn last_good<'t, 's, 'a>(
    side: &'t [Peak<'s, 'a>],
    is_good: impl Fn(&Peak<'s, 'a>) -> bool,
) -> Option<(&'t Peak<'s, 'a>, Limit)> {
    let peak = side.iter().skip_while(|peak| !is_good(peak)).take_while(|peak| is_good(peak)).last()?;
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
            let peak = Peak { lr, group, meets: BTreeMap::new() };
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

    /// Sorts the peaks and finds out what they are good for.
    fn judge(&mut self) {
        let all = || self.without.iter().chain(&self.with);
        let ended = all().filter(|peak| peak.group.summary.diverged == 0);
        let best = ended.filter_map(|peak| peak.group.summary.loss.mean).fold(f64::INFINITY, f64::min);
        for side in [&mut self.without, &mut self.with] {
            side.sort_by(|a, b| a.lr.total_cmp(&b.lr));
            for peak in side {
                let constant = peak.group.workload.map_or(f64::NEG_INFINITY, |workload| workload.constant_loss);
                let is_usable = |trial: &Trial| {
                    trial
                        .final_loss()
                        .is_some_and(|loss| best < constant && constant - loss >= USABLE_SHARE * (constant - best))
                };
                let steps = peak.group.steps();
                let is_stable = |trial: &Trial| {
                    let losses = smoothed(&training(trial.metrics, loss), steps, PARTS);
                    trial.final_loss().is_some()
                        && never_rises(losses.iter().map(|part| part.value), LARGEST_RISE * constant)
                };
                let trials = peak.group.finals.iter();
                peak.meets =
                    trials.map(|trial| (trial.record.config.seed, [is_usable(trial), is_stable(trial)])).collect();
            }
        }
    }

    /// The largest peaks without warmup and with it that are good for every seed, with their groups.
    pub fn largest(&self, criterion: Criterion) -> [Option<(&Peak<'s, 'a>, Limit)>; 2] {
        [&self.without, &self.with].map(|side| last_good(side, |peak| peak.is(criterion)))
    }

    /// The seeds that each peak was tried with.
    fn seeds(&self) -> Vec<u64> {
        let mut all = self.without.iter().chain(&self.with);
        let Some(first) = all.next() else { return Vec::new() };
        let is_everywhere = |seed: &u64| all.clone().all(|peak| peak.meets.contains_key(seed));
        first.meets.keys().copied().filter(is_everywhere).collect()
    }

    /// The largest good peak with each seed alone: without warmup, and with it.
    pub fn by_seed(&self, criterion: Criterion) -> Vec<[Option<Limit>; 2]> {
        let of = |seed: &u64| {
            let is_good = |peak: &Peak| peak.meets[seed][criterion as usize];
            [&self.without, &self.with].map(|side| Some(last_good(side, is_good)?.1))
        };
        self.seeds().iter().map(of).collect()
    }

    /// By how much warmup raised the largest good peak: for all seeds together, and for each on its own in words.
    pub fn ratios(&self, criterion: Criterion) -> (Option<Ratio>, Option<String>) {
        let together = self.largest(criterion).map(|limit| limit.map(|(_, limit)| limit));
        let by_seed: Vec<Option<Ratio>> = self.by_seed(criterion).into_iter().map(Ratio::of).collect();
        (Ratio::of(together), counted(by_seed))
    }
}

/// Whether no number is above the least before it by more than `rise`.
fn never_rises(numbers: impl Iterator<Item = f64>, rise: f64) -> bool {
    let mut least = f64::INFINITY;
    // A number that is not one is above all.
    numbers.into_iter().all(|number| {
        let is_near = number <= least + rise;
        least = least.min(number);
        is_near
    })
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

/// Whether `facet` is at the largest peak that is usable with warmup, or without: where warmup matters most.
pub fn is_at_the_limit(sweeps: &[Sweep], facet: &Facet) -> bool {
    let at_limit = |member: &Member| {
        let limits = sweeps.iter().flat_map(|sweep| sweep.largest(Criterion::Usable)).flatten();
        limits.into_iter().any(|(peak, _)| peak.group.is(member.group))
    };
    facet.members.iter().any(at_limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_name_the_numbers_that_are_used() {
        assert!(Criterion::Usable.definition().contains(&format!("at least {} %", USABLE_SHARE * 100.0)));
        assert!(Criterion::Stable.definition().contains(&format!("more than {} %", LARGEST_RISE * 100.0)));
        assert!(Criterion::Stable.definition().contains(&format!("averaged over {PARTS} equal parts")));
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
    fn a_loss_that_spikes_and_recovers_has_risen() {
        for (losses, expected) in [
            (&[2.0, 1.5, 1.0, 0.9][..], true),
            (&[2.0, 1.0, 1.1, 0.9], true),
            (&[2.0, 1.0, 1.6, 0.9], false),
            (&[2.0, 1.0, 1.0, 1.3], false),
            // Slowly, but far from the least.
            (&[1.0, 1.15, 1.3], false),
            (&[1.0, f64::NAN, 1.0], false),
            (&[1.0, f64::INFINITY, 1.0], false),
            (&[], true),
        ] {
            assert_eq!(never_rises(losses.iter().copied(), 0.2), expected, "{losses:?}");
        }
    }
}
