//! Whether groups differ: tests of their end losses in pairs.

use super::{facet::facets, group::ReportGroup, problem::Problem, ranking::ranking};
use crate::stats::{self, PairedTest};

/// Up to here a number of seeds is told.
const MOST_SEEDS: usize = 1_000;

/// A difference with a smaller p value is called significant.
pub const SIGNIFICANT: f64 = 0.05;

/// The comparison of two groups.
#[derive(Clone, Debug)]
pub struct Pair<'s, 'a> {
    /// The one.
    pub a: &'s ReportGroup<'a>,
    /// The other.
    pub b: &'s ReportGroup<'a>,
    /// What is known of their end losses; none where they have fewer than two seeds in common that did not diverge.
    pub tested: Option<Tested>,
}

impl Pair<'_, '_> {
    fn is_of(&self, a: &ReportGroup, b: &ReportGroup) -> bool {
        self.a.is(a) && self.b.is(b)
    }
}

/// The test of a pair among others.
#[derive(Clone, Copy, Debug)]
pub struct Tested {
    /// The test; the difference is the one's loss minus the other's.
    pub test: PairedTest,
    /// The p value after Holm's correction for all pairs of the problem.
    pub adjusted: f64,
    /// The least difference, either way, that the seeds could have shown, the other pairs being as they are; none where all seeds differ
    /// by the same.
    pub least: Option<f64>,
    /// By how many tests the level is divided for this one.
    pub tests: usize,
}

impl Tested {
    /// The mean difference.
    pub fn mean(&self) -> f64 {
        self.test.difference.mean.unwrap_or(f64::NAN)
    }

    /// The seeds that show a difference of `size`, if it is there, in four runs of five; none where they are more than 1,000.
    pub fn seeds_to_show(&self, size: f64) -> Option<usize> {
        self.test.seeds_to_show(size, SIGNIFICANT, self.tests, MOST_SEEDS)
    }

    /// Whether the difference is more than chance.
    pub fn is_significant(&self) -> bool {
        self.adjusted < SIGNIFICANT
    }
}

/// How the groups of a problem are compared. Which pairs there are is known before any trial, so that the correction for their
/// number holds: pairs picked by their results would need more.
#[derive(Clone, Debug)]
pub enum Pairs<'s, 'a> {
    /// Each with each.
    All(Vec<Pair<'s, 'a>>),
    /// With warmup and without, all else the same.
    Warmup(Vec<Pair<'s, 'a>>),
}

impl<'s, 'a> Pairs<'s, 'a> {
    /// Compares the groups of `problem`.
    pub fn of(problem: &Problem<'s, 'a>) -> Self {
        if problem.groups.iter().all(|group| group.experiment == "warmup") {
            let pairs = facets(&problem.groups).into_iter().filter_map(|facet| {
                let find = |value: &str| {
                    let is = |group: &&ReportGroup| group.factor("warmup").as_deref() == Some(value);
                    facet.members.iter().map(|member| member.group).find(is)
                };
                find("yes").zip(find("no"))
            });
            return Self::Warmup(compare(pairs.collect()));
        }
        // A group of which no trial ended is one of those that were to be compared.
        let mut all = ranking(problem);
        let without = problem.groups.iter().copied().filter(|group| group.summary.loss.mean.is_none());
        all.extend(without);
        let pairs_from = |i: usize| all[i + 1..].iter().map(move |b| (i, *b));
        Self::All(compare((0..all.len()).flat_map(pairs_from).map(|(i, b)| (all[i], b)).collect()))
    }

    /// All pairs.
    pub fn all(&self) -> &[Pair<'s, 'a>] {
        match self {
            Self::All(pairs) | Self::Warmup(pairs) => pairs,
        }
    }

    /// The pair of `a` and `b`, with the difference as `a` minus `b`; none where they are not compared.
    pub fn get(&self, a: &ReportGroup, b: &ReportGroup) -> Option<Pair<'s, 'a>> {
        let mut pair = self.all().iter().find(|pair| pair.is_of(a, b) || pair.is_of(b, a))?.clone();
        if !pair.is_of(a, b) {
            std::mem::swap(&mut pair.a, &mut pair.b);
            if let Some(Tested { test, .. }) = &mut pair.tested {
                test.t = -test.t;
                test.difference.mean = test.difference.mean.map(|mean| -mean);
                test.difference.ci95 = test.difference.ci95.map(|[low, high]| [-high, -low]);
            }
        }
        Some(pair)
    }
}

/// Compares `pairs`. One that cannot be tested counts as p = 1 in the correction for their number, which no result makes smaller.
fn compare<'s, 'a>(pairs: Vec<(&'s ReportGroup<'a>, &'s ReportGroup<'a>)>) -> Vec<Pair<'s, 'a>> {
    let test = |(a, b): &(&'s ReportGroup<'a>, &'s ReportGroup<'a>)| {
        let seeds = a.seeds();
        stats::paired_t(&a.losses(&seeds), &b.losses(&seeds))
    };
    let tests: Vec<Option<PairedTest>> = pairs.iter().map(test).collect();
    let p: Vec<f64> = tests.iter().map(|test| test.map_or(1.0, |test| test.p)).collect();
    let adjusted = stats::holm(&p);
    let pair = |(index, ((a, b), test)): (usize, ((&'s ReportGroup<'a>, &'s ReportGroup<'a>), Option<PairedTest>))| {
        let tested = test.map(|test| {
            let tests = stats::holm_tests(&p, index, SIGNIFICANT);
            let least = test.least_significant(SIGNIFICANT, tests);
            // Without any spread there is no limit to tell: nothing is known of what spread there could be.
            let least = (test.standard_error > 0.0).then_some(least);
            Tested { test, adjusted: adjusted[index], least, tests }
        });
        Pair { a, b, tested }
    };
    pairs.into_iter().zip(tests).enumerate().map(pair).collect()
}
