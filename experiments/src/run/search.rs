//! Tuning trials of all groups, round by round, and what they pick.

use super::{
    halving,
    jobs::Jobs,
    plan::{Group, Plan},
    space::Space,
    trial::{Trial, make_distinct},
    tune,
};
use crate::{
    config::options::Settings,
    problem::data::loaded::Data,
    record::{outcome::Outcome, trial::TrialConfig},
};
use anyhow::Result;
use optim::AnyRule;
use std::{
    collections::BTreeMap,
    num::{NonZeroU64, NonZeroUsize},
    sync::{Arc, atomic::AtomicBool},
};

/// What a search did.
pub struct Searched<'a> {
    /// All tuning trials.
    pub trials: Vec<Trial<'a>>,
    /// How each ended.
    pub outcomes: Vec<Outcome>,
    /// What was searched for each group, as far as it grew.
    pub spaces: Vec<Space>,
}

/// A tuning trial, as far as it went.
struct Tried<'a> {
    trial: Trial<'a>,
    outcome: Outcome,
    /// Its loss at each rung that it was run to; none where it diverged before.
    losses: Vec<Option<f64>>,
}

/// The search of a group.
struct GroupSearch<'a> {
    space: Space,
    rungs: Vec<u64>,
    budget: u64,
    tried: Vec<Tried<'a>>,
}

/// The search of all groups.
pub struct Search<'s, 'a> {
    /// The groups.
    pub plan: &'s Plan,
    /// What runs the trials.
    pub jobs: &'s Jobs<'s>,
    /// By data set.
    pub data: &'s BTreeMap<String, Data>,
    /// Makes the tuning trial of a group, by its index, with a rule.
    pub trial: &'s dyn Fn(usize, &AnyRule) -> Result<Trial<'a>>,
    /// Ends it once it is set.
    pub stop: &'s Arc<AtomicBool>,
}

impl<'a> Search<'_, 'a> {
    /// All tuning trials that the settings ask for; none when it was stopped.
    ///
    /// # Errors
    /// When a file cannot be written or candle fails.
    pub fn run(&self, settings: &Settings) -> Result<Option<Searched<'a>>> {
        let searches = match (settings.tune, settings.tune_steps) {
            (_, Some(steps)) => self.by_halving(steps)?,
            (Some(count), None) => self.whole(count)?,
            (None, None) => Some(self.plan.groups.iter().map(|group| self.unsearched(group)).collect()),
        };
        let Some(searches) = searches else { return Ok(None) };
        let spaces = searches.iter().map(|search| search.space.clone()).collect();
        // Trial by trial of each group, as they were run.
        let mut tried: Vec<(usize, Tried)> =
            searches.into_iter().flat_map(|search| search.tried.into_iter().enumerate()).collect();
        tried.sort_by_key(|(at, _)| *at);
        let (trials, outcomes) = tried.into_iter().map(|(_, tried)| (tried.trial, tried.outcome)).unzip();
        Ok(Some(Searched { trials, outcomes, spaces }))
    }

    fn unsearched(&self, group: &Group) -> GroupSearch<'a> {
        GroupSearch { space: group.space.clone(), rungs: Vec::new(), budget: 0, tried: Vec::new() }
    }

    /// `count` whole trials of each group.
    fn whole(&self, count: NonZeroUsize) -> Result<Option<Vec<GroupSearch<'a>>>> {
        let mut searches: Vec<GroupSearch<'a>> = self.plan.groups.iter().map(|group| self.unsearched(group)).collect();
        for (round, size) in tune::rounds(count.get()).into_iter().enumerate() {
            let mut points = Vec::new();
            for (group, search) in self.plan.groups.iter().zip(&mut searches) {
                points.push(match round.checked_sub(1) {
                    None => (0..size).map(|at| search.space.spread(&group.rule, at)).collect::<Result<Vec<_>>>()?,
                    Some(round) => {
                        let tried = search.tried.iter();
                        let tried: Vec<_> =
                            tried.map(|tried| (tried.trial.rule.clone(), tried.outcome.final_loss)).collect();
                        let mut points = search.space.around_best(&tried, round)?;
                        search.retain_new(&mut points);
                        points.truncate(size);
                        points
                    }
                });
            }
            let new = self.begin(&searches, points, &format!(" of {count}"))?;
            let run: Vec<_> = new.iter().map(|trial| (trial, None)).collect();
            let Some(ended) = self.jobs.run_all(&run, self.data, self.stop)? else { return Ok(None) };
            for (trial, outcome) in new.into_iter().zip(ended) {
                searches[trial.group].tried.push(Tried { trial, outcome, losses: Vec::new() });
            }
        }
        Ok(Some(searches))
    }

    /// Trials of each group that make `budget` updates together, by successive halving: see [`halving`].
    fn by_halving(&self, budget: NonZeroU64) -> Result<Option<Vec<GroupSearch<'a>>>> {
        let mut searches = Vec::new();
        let mut points = Vec::new();
        for (index, group) in self.plan.groups.iter().enumerate() {
            let TrialConfig { steps, evaluate_every, .. } = (self.trial)(index, &group.rule)?.record.config;
            let rungs = halving::rungs(steps, evaluate_every);
            let spread = halving::spread(&rungs, budget.get());
            points.push((0..spread).map(|at| group.space.spread(&group.rule, at)).collect::<Result<Vec<_>>>()?);
            searches.push(GroupSearch { rungs, budget: budget.get(), ..self.unsearched(group) });
        }
        let new = self.begin(&searches, points, "")?;
        for trial in new {
            searches[trial.group].tried.push(Tried { trial, outcome: Outcome::default(), losses: Vec::new() });
        }
        let mut running: Vec<Vec<usize>> = searches.iter().map(|search| (0..search.tried.len()).collect()).collect();
        for rung in 0.. {
            let run = searches.iter().zip(&running).flat_map(|(search, running)| {
                let until = search.rungs.get(rung).copied();
                running.iter().map(move |at| (&search.tried[*at].trial, until))
            });
            let run: Vec<_> = run.collect();
            if run.is_empty() {
                break;
            }
            let Some(ended) = self.jobs.run_all(&run, self.data, self.stop)? else { return Ok(None) };
            let mut ended = ended.into_iter();
            for (search, running) in searches.iter_mut().zip(&mut running) {
                for at in running.iter() {
                    let (tried, step) = (&mut search.tried[*at], search.rungs[rung]);
                    tried.outcome = ended.next().expect("an outcome of each trial");
                    tried.losses.push(self.jobs.loss_at(&tried.trial, step)?);
                }
                *running = search.promoted(running, rung);
            }
        }
        for tried in searches.iter().flat_map(|search| &search.tried).filter(|tried| tried.outcome.stopped) {
            self.jobs.give_up(&tried.trial);
        }
        for round in 0.. {
            let points = searches.iter_mut().map(|search| search.next(round)).collect::<Result<Vec<_>>>()?;
            let new = self.begin(&searches, points, "")?;
            if new.is_empty() {
                break;
            }
            let run: Vec<_> = new.iter().map(|trial| (trial, None)).collect();
            let Some(ended) = self.jobs.run_all(&run, self.data, self.stop)? else { return Ok(None) };
            for (trial, outcome) in new.into_iter().zip(ended) {
                let search = &mut searches[trial.group];
                let losses = search.rungs.iter().map(|step| self.jobs.loss_at(&trial, *step)).collect::<Result<_>>()?;
                search.tried.push(Tried { trial, outcome, losses });
            }
        }
        Ok(Some(searches))
    }

    /// The trials of new points of each group, trial by trial of each, so that every group is seen early.
    fn begin(&self, searches: &[GroupSearch], points: Vec<Vec<AnyRule>>, of: &str) -> Result<Vec<Trial<'a>>> {
        let most = points.iter().map(Vec::len).max().unwrap_or(0);
        let pairs = (0..most).flat_map(|at| (0..points.len()).map(move |group| (at, group)));
        let new = pairs.filter_map(|(at, group)| Some((at, group, points[group].get(at)?))).map(|(at, group, rule)| {
            let trial = (self.trial)(group, rule)?;
            let number = searches[group].tried.len() + at + 1;
            let name = format!("{}, tuning {number}{of}", self.plan.groups[group].config.name);
            let tried = format!(" with {}", searches[group].space.values(&trial.rule));
            Ok(Trial { name, tried, ..trial })
        });
        let mut new = new.collect::<Result<Vec<_>>>()?;
        let tried = searches.iter().flat_map(|search| &search.tried);
        make_distinct(&mut new, tried.map(|tried| tried.trial.record.id.as_str()));
        Ok(new)
    }

    /// The rule of each group: as given, or as picked by its tuning trials.
    pub fn pick(&self, searched: &Searched) -> Vec<AnyRule> {
        let pick = |(index, group): (usize, &Group)| {
            let all = searched.trials.iter().zip(&searched.outcomes);
            let own: Vec<(&Trial, &Outcome)> = all.filter(|(trial, _)| trial.group == index).collect();
            if own.is_empty() {
                return group.rule.clone();
            }
            let best = tune::pick(&own.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>());
            let (trial, outcome) = own[best];
            let name = &group.config.name;
            let loss = outcome
                .final_loss
                .map_or("no loss: all diverged".to_owned(), |loss| format!("validation loss {loss:.4}"));
            let warning = searched.spaces[index].searched(&trial.rule).warning();
            let edge = warning.map_or(String::new(), |warning| format!("; {warning}: --space can widen it"));
            self.jobs.console.line(&format!("{name}: picked {} ({loss}){edge}", trial.rule));
            tracing::info!(group = name, picked = %trial.rule, edge, "tuned");
            trial.rule.clone()
        };
        self.plan.groups.iter().enumerate().map(pick).collect()
    }
}

impl GroupSearch<'_> {
    /// Leaves out what was tried.
    fn retain_new(&self, points: &mut Vec<AnyRule>) {
        points.retain(|rule| self.tried.iter().all(|tried| tried.trial.rule != *rule));
    }

    /// What is tried next, of what the budget has left for whole trials: points around the best.
    fn next(&mut self, round: usize) -> Result<Vec<AnyRule>> {
        let spent: u64 = self.tried.iter().map(|tried| tried.outcome.steps).sum();
        let whole = self.rungs.last().copied().unwrap_or(1);
        let left = self.budget.saturating_sub(spent) / whole;
        if left == 0 {
            return Ok(Vec::new());
        }
        let mut points = self.space.around_best(&self.estimates(), round)?;
        self.retain_new(&mut points);
        points.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(points)
    }

    /// Each rule with its loss at the end: where it was stopped before, the loss that it would have if it went on to fall by as much as the
    /// best one's did.
    fn estimates(&self) -> Vec<(AnyRule, Option<f64>)> {
        let whole = self.tried.iter().filter_map(|tried| Some((tried.outcome.final_loss?, tried)));
        let best = whole.min_by(|a, b| a.0.total_cmp(&b.0));
        let estimate = |tried: &Tried| {
            if !tried.outcome.stopped {
                return tried.outcome.final_loss;
            }
            let (rung, loss) = tried.losses.iter().enumerate().next_back()?;
            let (end, best) = best?;
            Some((*loss)? * end / (*best.losses.get(rung)?)?)
        };
        self.tried.iter().map(|tried| (tried.trial.rule.clone(), estimate(tried))).collect()
    }

    /// Which of the trials that were just run to `rung` go on to the next one: the better half, of which none diverged.
    fn promoted(&self, run: &[usize], rung: usize) -> Vec<usize> {
        if rung + 1 >= self.rungs.len() {
            return Vec::new();
        }
        let loss = |at: usize| self.tried[at].losses[rung];
        let mut own: Vec<(f64, usize)> = run.iter().filter_map(|at| Some((loss(*at)?, *at))).collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        own.truncate(halving::survivors(run.len()));
        own.into_iter().map(|(_, at)| at).collect()
    }
}
