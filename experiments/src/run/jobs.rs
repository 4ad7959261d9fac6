//! Who runs trials: threads of this process, several trials at a time.

use super::{
    console::{self, Console},
    train::{Saving, Training},
    trial::Trial,
    write_queue::WriteQueue,
};
use crate::{
    config::device::DeviceName,
    problem::data::loaded::Data,
    record::{
        files::{read_json, write_json},
        hyperparameters,
        metric::Metric,
        metrics_file::MetricsWriter,
        out_dir::OutDir,
        outcome::Outcome,
        tensorboard::Events,
        trial::{Phase, TrialRecord},
    },
};
use anyhow::{Context, Result, bail};
use optim::Rule;
use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU64,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// The file of a trial's checkpoint.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Updates between two checkpoints of a trial.
pub const CHECKPOINT_EVERY: u64 = 200;
/// The least time between two, where nothing else is asked for.
pub const CHECKPOINTS_APART: Duration = Duration::from_secs(5);

/// What trials are run with.
pub struct Jobs<'a> {
    /// Where they are written.
    pub out: &'a OutDir,
    /// Where they are shown.
    pub console: &'a Console,
    /// Where they train.
    pub device: DeviceName,
    /// Threads, shared by the trials that run at a time.
    pub threads: usize,
    /// Trials that run at a time.
    pub jobs: usize,
    /// Updates between two checkpoints, where that is told.
    pub checkpoint_every: Option<NonZeroU64>,
    /// Is told of each trial that has ended, and whether that was now.
    pub on_end: &'a (dyn Fn(&TrialRecord, bool) + Sync),
}

impl Jobs<'_> {
    /// The outcomes of `trials`, in order; none when it was stopped. One with a number of updates ends as stopped after them, and can be
    /// run on.
    ///
    /// # Errors
    /// When a file cannot be written or candle fails.
    pub fn run_all(
        &self,
        trials: &[(&Trial, Option<u64>)],
        data: &BTreeMap<String, Data>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Option<Vec<Outcome>>> {
        let tuning_data: BTreeMap<&str, Data> = match trials.first() {
            Some((trial, _)) if trial.record.config.phase == Phase::Tune => {
                data.iter().map(|(name, data)| (name.as_str(), data.split_for_tuning())).collect()
            }
            _ => BTreeMap::new(),
        };
        let data_of = |trial: &Trial| {
            let name = trial.record.config.dataset.as_str();
            tuning_data.get(name).unwrap_or(&data[name])
        };
        let overall = self.console.overall(trials.len() as u64);
        let queue = WriteQueue::start(Arc::clone(stop));
        let next = AtomicUsize::new(0);
        let ended: Mutex<Vec<Option<Result<Option<Outcome>>>>> = Mutex::new(trials.iter().map(|_| None).collect());
        thread::scope(|scope| -> Result<()> {
            for job in 0..self.jobs {
                // What does not divide goes to the first.
                let threads = self.threads / self.jobs + usize::from(job < self.threads % self.jobs);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build()?;
                let (next, ended, data_of, overall, queue) = (&next, &ended, &data_of, &overall, &queue);
                scope.spawn(move || {
                    let _guard = StopsOnPanic(stop);
                    pool.install(|| {
                        loop {
                            let index = next.fetch_add(1, Relaxed);
                            let Some(&(trial, until)) = trials.get(index) else { break };
                            let outcome = self.run_trial(trial, until, data_of(trial), queue, stop);
                            if !matches!(outcome, Ok(Some(_))) {
                                next.store(trials.len(), Relaxed);
                            }
                            if let Err(error) = &outcome {
                                // The others save themselves, and can be gone on with once the cause is mended.
                                stop.store(true, Relaxed);
                                tracing::error!(target: console::FILE_ONLY, trial = trial.record.id, "{error:#}");
                            }
                            overall.one_more();
                            ended.lock().expect("no holder of the lock panics")[index] = Some(outcome);
                        }
                    });
                });
            }
            Ok(())
        })?;
        queue.finish()?;
        let mut outcomes = Vec::new();
        let mut stopped = false;
        for ((trial, _), outcome) in trials.iter().zip(ended.into_inner().expect("no holder of the lock panics")) {
            match outcome.transpose().with_context(|| format!("trial {}", trial.record.id))?.flatten() {
                Some(outcome) => outcomes.push(outcome),
                None => stopped = true,
            }
        }
        Ok((!stopped).then_some(outcomes))
    }

    /// What need not be there before it returns is written by `queue`.
    fn run_trial(
        &self,
        trial: &Trial,
        until: Option<u64>,
        data: &Data,
        queue: &WriteQueue,
        stop: &AtomicBool,
    ) -> Result<Option<Outcome>> {
        let TrialRecord { id, config, .. } = &trial.record;
        let (name, file) = (&trial.name, |name: &str| self.out.trial_file(id, name));
        let is_new = !file("trial.json").exists();
        let mut goes_on = false;
        if !is_new {
            let folder = self.out.trial_file(id, "");
            let again = |error| anyhow::anyhow!("{error:#}; without `{}` it begins anew", folder.display());
            let record: TrialRecord = read_json(&file("trial.json")).map_err(again)?;
            if record.config != *config {
                bail!("`{}` is of another config", file("trial.json").display());
            }
            match &record.outcome {
                Some(outcome) if !outcome.stopped => {
                    TrialRecord::read(&self.out.trial_file(id, "")).map_err(again)?;
                    // The process may have been killed between the outcome and this.
                    let _ = fs::remove_file(file(CHECKPOINT));
                    (self.on_end)(&record, false);
                    return Ok(Some(outcome.clone()));
                }
                Some(outcome) if until.is_some_and(|until| until <= outcome.steps) => return Ok(Some(outcome.clone())),
                stopped => goes_on = stopped.is_some(),
            }
        }
        if stop.load(Relaxed) {
            return Ok(None);
        }
        let folder = self.out.trial_file(id, "");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        // Where it was stopped is what tells a resumed run that it need not be run until there again.
        if !goes_on {
            let (path, record) = (file("trial.json"), trial.record.clone());
            queue.push(move || write_json(&path, &record))?;
        }
        let folder = self.out.path().join("tensorboard").join(id);
        let events = Events::new(folder, &trial.record, &trial.rule.qualified_name(), hyperparameters::of(&trial.rule));
        let mut metrics = MetricsWriter::open(file("metrics.jsonl"))?.with_events(events);
        let training = Training {
            data,
            model: &trial.workload.model,
            shape: trial.workload.shape,
            rule: trial.rule.clone(),
            schedule: trial.schedule.clone(),
            config,
        };
        let saving = Saving {
            path: file(CHECKPOINT),
            every: self.checkpoint_every.map_or(CHECKPOINT_EVERY, NonZeroU64::get),
            apart: if self.checkpoint_every.is_some() { Duration::ZERO } else { CHECKPOINTS_APART },
            until,
        };
        tracing::info!(trial = id, resumed = !is_new, "begins");
        let bar = self.console.trial(name, config.steps);
        let outcome = training.run(&self.device.open()?, &mut metrics, Some(&saving), &bar, stop)?;
        drop(bar);
        let Some(outcome) = outcome else { return Ok(None) };
        let metrics_sha256 = Some(metrics.sha256());
        let record = TrialRecord { outcome: Some(outcome.clone()), metrics_sha256, ..trial.record.clone() };
        let (path, written, ended) = (file("trial.json"), record.clone(), outcome.clone());
        queue.push(move || {
            if ended.stopped {
                metrics.sync()?;
                return write_json(&path, &written);
            }
            metrics.end(&ended)?;
            // The trial has ended once its outcome is there, with all else.
            write_json(&path, &written)?;
            // What ended needs no checkpoint.
            let _ = fs::remove_file(&saving.path);
            Ok(())
        })?;
        if outcome.stopped {
            tracing::info!(trial = id, steps = outcome.steps, "stopped");
            return Ok(Some(outcome));
        }
        (self.on_end)(&record, true);
        self.console.line(&format!("{name}: {}{}", describe(&outcome), trial.tried));
        match &outcome.cause {
            Some(cause) => tracing::info!(trial = id, cause, "diverged"),
            None => tracing::info!(trial = id, loss = outcome.final_loss, accuracy = outcome.final_accuracy, "ended"),
        }
        Ok(Some(outcome))
    }
}

impl Jobs<'_> {
    /// The loss of `trial` that was measured after `step` updates; none where it did not get there.
    ///
    /// # Errors
    /// When its measurements cannot be read.
    pub fn loss_at(&self, trial: &Trial, step: u64) -> Result<Option<f64>> {
        let path = self.out.trial_file(&trial.record.id, "metrics.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        // What a process that was killed wrote last may be a part of a line.
        let metrics = text.lines().map_while(|line| serde_json::from_str(line).ok());
        let loss = metrics.into_iter().find_map(|metric| match metric {
            Metric::Eval { step: at, loss, .. } if at == step => Some(loss),
            _ => None,
        });
        Ok(loss.filter(|loss| loss.is_finite()))
    }

    /// Removes what would let `trial` go on, which stays stopped.
    pub fn give_up(&self, trial: &Trial) {
        let _ = fs::remove_file(self.out.trial_file(&trial.record.id, CHECKPOINT));
    }
}

/// Sets its flag when its thread panics, so that the other trials save themselves before the program ends.
struct StopsOnPanic<'a>(&'a AtomicBool);

impl Drop for StopsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    match (&outcome.cause, outcome.final_loss, outcome.final_accuracy) {
        (None, Some(loss), Some(accuracy)) => {
            let ema = outcome.ema_loss.zip(outcome.ema_accuracy);
            let ema = ema.map_or(String::new(), |(loss, accuracy)| {
                format!(" (EMA: loss {loss:.4}, accuracy {:.2} %)", accuracy * 100.0)
            });
            format!("loss {loss:.4}, accuracy {:.2} %{ema}, {:.1} s", accuracy * 100.0, outcome.seconds)
        }
        (cause, ..) => format!("diverged: {}", cause.as_deref().unwrap_or("no evaluation")),
    }
}
