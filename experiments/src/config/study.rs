//! A study: what a binary compares.

use super::{
    choice::Choice,
    group::GroupConfig,
    options::{Norm, Settings},
};
use anyhow::Result;
use std::collections::BTreeMap;

/// What a binary compares.
#[derive(Debug, Clone, Copy)]
pub struct Study {
    /// Its name, as in `summary.json`.
    pub name: &'static str,
    /// The question that it answers, in a line.
    pub about: &'static str,
    /// Command lines to begin with, without the program's name, and what each does: they end `--help`.
    pub examples: &'static [(&'static str, &'static str)],
    /// The data set where none is given.
    pub dataset: &'static str,
    /// The model where none is given; the data set's own otherwise.
    pub model: Option<&'static str>,
    /// The optimizers where none is given.
    pub optimizers: &'static [&'static str],
    /// What is compared where nothing at all is told of problem, optimizers and length.
    pub first: Option<First>,
    /// The schedules where none is given; their numbers are for [`Study::steps`] and hold for no other length.
    pub schedules: &'static [&'static str],
    /// Where its model normalises, where neither a model nor that is given.
    pub norm: Option<Norm>,
    /// The peak learning rates where none is given.
    pub peaks: &'static [f64],
    /// The number of updates where no length is given; the data set's own otherwise.
    pub steps: Option<u64>,
    /// The options that not all binaries have, and this one has.
    pub own: &'static [&'static str],
    /// Whether every step is probed.
    pub probe: bool,
    /// The groups it compares on a data set and a model.
    pub groups: fn(&Compared) -> Result<Vec<GroupConfig>>,
}

/// What the groups on a data set and a model are made of.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// All that the run was told.
    pub settings: &'a Settings,
    /// The data set.
    pub dataset: &'a str,
    /// The model, with one value of each list.
    pub model: &'a str,
    /// The optimizers; at least one.
    pub optimizers: &'a [Choice],
    /// The schedules; at least one.
    pub schedules: &'a [Choice],
}

impl Compared<'_> {
    /// A group of this optimizer and schedule, which nothing sets apart yet.
    pub fn group(&self, optimizer: &str, schedule: &str) -> GroupConfig {
        GroupConfig {
            name: String::new(),
            dataset: self.dataset.to_owned(),
            model: self.model.to_owned(),
            optimizer: optimizer.to_owned(),
            schedule: schedule.to_owned(),
            factors: BTreeMap::new(),
        }
    }

    /// The factor that sets optimizers apart; none where the run was told one, lists or not.
    pub fn optimizer_factor(&self) -> Option<&'static str> {
        (self.settings.opt.len() > 1).then_some("optimizer")
    }
}

/// A run that answers a question in about a minute.
#[derive(Debug, Clone, Copy)]
pub struct First {
    /// The optimizers.
    pub optimizers: &'static [&'static str],
    /// Tuning trials of each.
    pub tune: usize,
    /// Seeds of each.
    pub seeds: usize,
}

/// The options that not all binaries have.
pub const SPECIAL: [&str; 5] = ["--lr", "--norm", "--tune", "--tune-steps", "--space"];
