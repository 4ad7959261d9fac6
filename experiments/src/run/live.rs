//! The page of a run that still trains: made anew as trials end.

use crate::record::{
    experiment::ExperimentRecord,
    metric::Metric,
    run::Run,
    trial::{Phase, TrialRecord},
};
use anyhow::{Result, anyhow};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The least time between two pages.
pub const PAGES_APART: Duration = Duration::from_secs(10);

/// A page takes at most this part of the time.
const SHARE: u32 = 20;

/// What the page of a run is made from while it trains.
pub struct Live<'a> {
    /// The folder of the run.
    out: &'a Path,
    experiment: ExperimentRecord,
    /// The trials of tuning, and those that are compared, in the whole run.
    planned: [usize; 2],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The ids of the trials that have ended.
    ended: Vec<String>,
    is_over: bool,
}

/// Trials that were read, by their id.
type Read = BTreeMap<String, (TrialRecord, Vec<Metric>)>;

impl<'a> Live<'a> {
    /// For a run in `out`, of which nothing has ended. `planned` are its trials: of tuning, and those that are compared.
    pub fn new(out: &'a Path, experiment: ExperimentRecord, planned: [usize; 2]) -> Self {
        Self { out, experiment, planned, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Takes note of a trial that has ended.
    pub fn ended(&self, id: &str) {
        let mut state = self.lock();
        if !state.ended.iter().any(|other| other == id) {
            state.ended.push(id.to_owned());
            self.changed.notify_all();
        }
    }

    /// Has [`Self::keep`] return once what is returned here is dropped.
    pub fn until_dropped(&self) -> Over<'_, 'a> {
        Over(self)
    }

    /// Makes the page by `make`, which is given the run and how far it is, whenever trials have ended since the one before: not before
    /// `apart` has passed since then, and not before 20 times of what a page takes. One that cannot be made is warned of once.
    pub fn keep(&self, apart: Duration, make: impl Fn(&Run, &str) -> Result<()>) {
        let (mut read, mut has_failed) = (Read::new(), false);
        let mut next = Instant::now() + apart;
        while let Some(ended) = self.wait(read.len(), next) {
            let began = Instant::now();
            if let (Err(error), false) = (self.make(&mut read, &ended, "Running", &make), has_failed) {
                has_failed = true;
                tracing::warn!("the page of the run cannot be made while it trains: {error:#}");
            }
            next = Instant::now() + apart.max(began.elapsed() * SHARE);
        }
    }

    /// Makes the page of a run that was interrupted, if any trial has ended.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn interrupted(&self, make: impl Fn(&Run, &str) -> Result<()>) -> Result<()> {
        let ended = self.lock().ended.clone();
        self.make(&mut Read::new(), &ended, "Interrupted", &make)
    }

    /// The trials that have ended, once they are more than `shown` and it is time; none once all is over.
    fn wait(&self, shown: usize, next: Instant) -> Option<Vec<String>> {
        let mut state = self.lock();
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if state.is_over {
                return None;
            }
            if state.ended.len() > shown && left.is_zero() {
                return Some(state.ended.clone());
            }
            let left = if left.is_zero() { PAGES_APART } else { left };
            state = self.changed.wait_timeout(state, left).expect("no holder of the lock panics").0;
        }
    }

    fn make(
        &self,
        read: &mut Read,
        ended: &[String],
        word: &str,
        make: &impl Fn(&Run, &str) -> Result<()>,
    ) -> Result<()> {
        for id in ended {
            // The last lines of one that ended a moment ago may not be written yet: it is on the next page.
            if let (false, Ok(trial)) = (read.contains_key(id), TrialRecord::read(&self.out.join("trials").join(id))) {
                read.insert(id.clone(), trial);
            }
        }
        if read.is_empty() {
            return Ok(());
        }
        let run = Run::so_far(self.out, self.experiment.clone(), read.values().cloned().collect())?;
        let finals = read.values().filter(|(record, _)| record.config.phase == Phase::Final).count();
        let [tuning_planned, planned] = self.planned;
        let so_far = match finals {
            0 if tuning_planned > 0 => format!("{word}: {} of {tuning_planned} tuning trials have ended.", read.len()),
            _ => format!("{word}: {finals} of {planned} trials have ended."),
        };
        // A run is worth more than its page.
        catch_unwind(AssertUnwindSafe(|| make(&run, &so_far))).unwrap_or_else(|_| Err(anyhow!("making it panicked")))
    }
}

/// Ends [`Live::keep`] when it is dropped.
pub struct Over<'l, 'a>(&'l Live<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}
