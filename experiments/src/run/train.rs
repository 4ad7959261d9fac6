//! One training run: updates, measurements, checkpoints.

use super::{
    checkpoint::Checkpoint,
    console::TrialBar,
    evaluate::{evaluate, evaluate_at},
    optimizer,
    probe::Prober,
};
use crate::{
    problem::{
        batches::{Batches, DeviceBatches, Sampling, steps_per_epoch},
        data::loaded::Data,
        models::{
            forward::{ForwardContext, Mode, Noise},
            parameters::Parameters,
            probe::Probe,
            shape::Shape,
            spec::ModelConfig,
        },
        prefetch::Prefetcher,
    },
    record::{metric::Metric, metrics_file::MetricsWriter, outcome::Outcome, progress::Progress, trial::TrialConfig},
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use optim::{AnyOptimizer, AnyRule, Rule, Schedule};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A train line is written for the first update, the last, and every update that is a multiple of this. Losses are read then,
/// so that a GPU need not wait for the host at each update.
const TRAIN_LINE_EVERY: u64 = 10;

/// What a training run needs.
#[derive(Clone, Debug)]
pub struct Training<'a> {
    /// What it trains on and is judged by.
    pub data: &'a Data,
    /// The model.
    pub model: &'a ModelConfig,
    /// The model's inputs and outputs.
    pub shape: Shape,
    /// The optimizer's rule.
    pub rule: AnyRule,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// All else.
    pub config: &'a TrialConfig,
}

/// Where a training run saves itself.
#[derive(Clone, Debug)]
pub struct Saving {
    /// The file.
    pub path: PathBuf,
    /// Updates between two savings.
    pub every: u64,
    /// The least time between two: where updates are quick, saving must not cost as much as training.
    pub apart: Duration,
    /// After how many updates it saves itself and ends as [stopped](Outcome::stopped), where that is before its end. It is evaluated then.
    pub until: Option<u64>,
}

impl Training<'_> {
    /// Trains on `device` and writes what it measures to `metrics`. On the CPU the measurements are a function of `self`
    /// alone, times excepted. Where `saving` names a file, the run goes on from it if it is there, and saves itself to it;
    /// it also does when `stop` is set, and then returns none.
    ///
    /// # Errors
    /// When candle fails or a file cannot be written. A loss that is not finite is no error but an [`Outcome`].
    pub fn run(
        &self,
        device: &Device,
        metrics: &mut MetricsWriter,
        saving: Option<&Saving>,
        bar: &TrialBar,
        stop: &AtomicBool,
    ) -> Result<Option<Outcome>> {
        self.run_reading(device.is_cpu(), device, metrics, saving, bar, stop)
    }

    /// As [`run`](Self::run), with every loss read `at_once` or only where a line, an evaluation or a checkpoint needs it. That
    /// changes no record: a GPU would have to be waited for, and on the CPU losses are there at once.
    fn run_reading(
        &self,
        at_once: bool,
        device: &Device,
        metrics: &mut MetricsWriter,
        saving: Option<&Saving>,
        bar: &TrialBar,
        stop: &AtomicBool,
    ) -> Result<Option<Outcome>> {
        let config = self.config;
        let parameters = Parameters::new(config.seed);
        let model = self.model.build(&self.shape, parameters.builder(device))?;
        let mut optimizer = optimizer::build(parameters.trainable(), &self.rule, &self.schedule, config)?;
        tracing::debug!(model = %self.model, parameters = parameters.count(), seed = config.seed, "built the model");

        // The second gradient of Sophia is of labels that the model gives itself.
        let draws_labels = self.rule.curvature().is_some();
        let mut prober = config.probe.then(|| Prober::new(parameters.trainable()));
        let mut progress = Progress::default();
        if let Some(Saving { path, .. }) = saving.filter(|saving| saving.path.exists()) {
            let checkpoint = Checkpoint::load(path, &config.id(), &parameters, &mut optimizer, device)?;
            progress = checkpoint.progress;
            if let Some(prober) = &mut prober {
                prober.set_update(checkpoint.update);
            }
        }
        metrics.go_on_from(progress.metrics_len, progress.metrics_sha256.as_deref())?;
        let on_device = DeviceBatches::new(self.data, &self.shape, device);
        let sampling = Sampling { batch_size: config.batch_size, augment: config.augment, seed: config.seed };
        let batches = || Batches::new(self.data, &self.shape, sampling, device);
        let (tests, mut trained, mut renewing) = (batches(), batches(), batches());
        if progress.step == 0 && model.examples_to_begin() > 0 {
            let (examples, _) = on_device.place(tests.first(model.examples_to_begin()))?;
            model.begin(&examples)?;
        }
        let mut prefetcher = Prefetcher::new("the batch after update", move |step| trained.train(step));
        let steps_per_epoch = steps_per_epoch(self.data, &self.shape, config.batch_size).max(1);
        let mut clock = Clock::from_seconds(progress.outcome.seconds);
        let mut saved_at = progress.step;
        let mut saved = Instant::now();
        // The losses of the latest updates that were not read yet.
        let mut unread: Vec<Tensor> = Vec::new();
        let save =
            |progress: &mut Progress, metrics: &MetricsWriter, prober: &Option<Prober>, optimizer: &AnyOptimizer| {
                let Some(Saving { path, .. }) = saving else { return Ok(()) };
                metrics.sync()?;
                (progress.metrics_len, progress.metrics_sha256) = (metrics.len(), Some(metrics.sha256()));
                let update = prober.as_ref().and_then(|prober| prober.update().map(<[Tensor]>::to_vec));
                Checkpoint { progress: progress.clone(), update }.save(path, &config.id(), &parameters, optimizer)
            };
        loop {
            let step = progress.step;
            let is_due = step > 0 && (step == config.steps || step % config.evaluate_every == 0);
            if is_due && !progress.evaluated {
                let (is_elsewhere, has_ema) = (self.rule.evaluation_point().is_some(), config.ema.is_some());
                // The end is measured by all.
                let part = config.evaluate_on.filter(|_| step < config.steps);
                let mut elsewhere = |optimizer: &mut AnyOptimizer| {
                    let trained = (step, &mut renewing);
                    evaluate_at(optimizer, trained, part, &*model, &parameters, config, &tests, &on_device, stop)
                };
                let measured = match is_elsewhere {
                    true => elsewhere(&mut optimizer)?,
                    false => evaluate(&*model, part, config, &tests, &on_device, stop)?,
                };
                let ema = if has_ema && measured.is_some() { Some(elsewhere(&mut optimizer)?) } else { None };
                let (Some((loss, accuracy)), None | Some(Some(_))) = (measured, ema) else {
                    save(&mut progress, metrics, &prober, &optimizer)?;
                    return Ok(None);
                };
                let seconds = progress.outcome.seconds;
                metrics.write(&Metric::Eval { step, loss, accuracy, seconds })?;
                let ema = ema.flatten();
                if let Some((loss, accuracy)) = ema {
                    metrics.write(&Metric::Ema { step, loss, accuracy, seconds })?;
                    progress.outcome.measure_ema(loss, accuracy);
                }
                if !loss.is_finite() {
                    let cause = format!("the test loss is {loss} at step {step}");
                    return Ok(Some(progress.outcome.diverge(cause)));
                }
                progress.outcome.measure(loss, accuracy);
                progress.evaluated = true;
                bar.evaluated((loss, accuracy), ema);
            }
            if step == config.steps {
                return Ok(Some(progress.outcome));
            }
            if saving.is_some_and(|saving| saving.until == Some(step)) {
                save(&mut progress, metrics, &prober, &optimizer)?;
                return Ok(Some(progress.outcome.stop()));
            }
            if stop.load(Relaxed) && unread.is_empty() {
                save(&mut progress, metrics, &prober, &optimizer)?;
                return Ok(None);
            }
            let is_due = |saving: &Saving| step % saving.every == 0 && saved.elapsed() >= saving.apart;
            if saving.is_some_and(is_due) && step > saved_at {
                save(&mut progress, metrics, &prober, &optimizer)?;
                (saved_at, saved) = (step, Instant::now());
            }

            clock.start();
            let (before, step) = (step, step + 1);
            let is_recorded = step == 1 || step == config.steps || step % TRAIN_LINE_EVERY == 0;
            let noise = Noise { seed: config.seed, step };
            let next = (step < config.steps).then_some(step);
            let (loss, probed) = prefetcher.use_and_make_next(before, next, |batch| {
                let (x, labels) = on_device.place(batch)?;
                let probe = prober.as_ref().map(|_| Probe::default());
                let mut watch = None;
                optimizer.set_measure_grad_norm(prober.is_none() && is_recorded);
                let loss = optimizer.step_with_gradients(|evaluation| {
                    // What is watched is the gradient at the parameters, of which an optimizer may take further ones.
                    let probe = probe.as_ref().filter(|_| evaluation == 0);
                    let (ops, dtype) = (config.ops, config.precision.dtype());
                    let pass =
                        ForwardContext { mode: Mode::Train { evaluation }, probe, noise: Some(noise), ops, dtype };
                    let loss = match draws_labels && evaluation > 0 {
                        true => pass.loss_of_drawn_labels(&*model, &x, noise)?,
                        false => pass.loss(&*model, &x, &labels)?.0,
                    };
                    let grads = ops::backward(&loss)?;
                    if let (Some(prober), 0) = (&prober, evaluation) {
                        watch = Some(prober.before(&grads)?);
                    }
                    Ok((loss, grads))
                })?;
                let probed = match (&mut prober, watch, probe) {
                    (Some(prober), Some(watch), Some(probe)) => Some(prober.after(step, watch, &probe)?),
                    _ => None,
                };
                Ok((loss, probed))
            })?;
            unread.push(loss);
            let is_timed = step == config.steps || step % config.evaluate_every == 0;
            let is_saved = saving.is_some_and(|saving| step % saving.every == 0);
            let is_read = at_once || is_recorded || is_timed || is_saved || probed.is_some();
            let losses: Vec<f32> =
                if is_read { Tensor::stack(&std::mem::take(&mut unread), 0)?.to_vec1()? } else { Vec::new() };
            if is_timed {
                device.synchronize()?;
            }
            let seconds = clock.stop();
            (progress.step, progress.evaluated) = (step, false);
            (progress.outcome.steps, progress.outcome.seconds) = (step, seconds);

            let mut grad_norm = match &probed {
                Some((_, norm)) => Some(*norm),
                None if is_recorded => optimizer.grad_norm()?,
                None => None,
            };
            let mut probe = probed.map(|(probe, _)| probe);
            let first = step + 1 - losses.len() as u64;
            for (step_of_loss, loss) in (first..).zip(losses).map(|(at, loss)| (at, f64::from(loss))) {
                let is_latest = step_of_loss == step;
                let diverged = !loss.is_finite() || loss > config.max_loss;
                if diverged || (is_latest && (is_recorded || probe.is_some())) {
                    let grad_norm = if is_latest { grad_norm.take() } else { None };
                    let (epoch, lr) = ((step_of_loss - 1) / steps_per_epoch, self.schedule.at(step_of_loss - 1));
                    metrics.write(&Metric::Train { step: step_of_loss, epoch, loss, lr, grad_norm, seconds })?;
                }
                if let Some(probe) = probe.take_if(|_| is_latest) {
                    metrics.write(&probe)?;
                }
                if diverged {
                    progress.outcome.steps = step_of_loss;
                    let bound = if loss.is_finite() { format!(", above {:?}", config.max_loss) } else { String::new() };
                    let cause = format!("the training loss is {loss:?} at step {step_of_loss}{bound}");
                    return Ok(Some(progress.outcome.diverge(cause)));
                }
                if is_latest {
                    bar.step(step, loss);
                }
            }
        }
    }
}

/// Adds up the time between `start` and `stop`.
struct Clock {
    total: Duration,
    started: Option<Instant>,
}

impl Clock {
    fn from_seconds(seconds: f64) -> Self {
        Self { total: Duration::from_secs_f64(seconds), started: None }
    }

    fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    /// The seconds so far.
    fn stop(&mut self) -> f64 {
        self.total += self.started.take().map_or(Duration::ZERO, |started| started.elapsed());
        self.total.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problem::{data::digits, models::registry},
        record::{self, trial::Phase},
        run::console::Console,
    };
    use std::{collections::BTreeSet, path::Path, thread};

    /// A run of a small model on digits, with clipping, so that a large learning rate lets the loss grow step by step.
    fn config(optimizer: &str, max_loss: f64, steps: u64) -> TrialConfig {
        TrialConfig {
            phase: Phase::Final,
            dataset: "digits".to_owned(),
            text_sha256: None,
            model: "mlp".to_owned(),
            optimizer: optimizer.to_owned(),
            schedule: "constant".to_owned(),
            clip: Some(1.0),
            ema: None,
            lookahead: None,
            decay_matrices_only: true,
            batch_size: 16,
            steps,
            evaluate_every: 23,
            evaluate_on: Some(100),
            augment: Default::default(),
            max_loss,
            probe: false,
            ops: Default::default(),
            precision: Default::default(),
            device: "cpu".to_owned(),
            seed: 3,
            repeat: None,
        }
    }

    /// Trains, from the checkpoint in `folder` if there is one, saving itself `every` so many steps; the outcome and all
    /// records, times left out, and those as text, in which NaN equals NaN and numbers are the same only if their bits are.
    fn train(
        config: &TrialConfig,
        at_once: bool,
        folder: &Path,
        every: u64,
        stop: &AtomicBool,
    ) -> Result<(Option<Outcome>, Vec<Metric>, String)> {
        let data = Data::Images(digits::load());
        let model = registry::parse(&config.model)?;
        let rule = optimizer::parse(&config.optimizer)?;
        let schedule = optimizer::parse_schedule(&config.schedule, &rule, config.steps)?;
        let shape = model.shape(&data)?;
        let training = Training { data: &data, model: &model, shape, rule, schedule, config };
        let mut metrics = MetricsWriter::open(folder.join(METRICS))?;
        let saving = Saving { path: folder.join(CHECKPOINT), every, apart: Duration::ZERO, until: None };
        let bar = Console::start(0)?.trial("", config.steps);
        let outcome = training.run_reading(at_once, &Device::Cpu, &mut metrics, Some(&saving), &bar, stop)?;
        let mut lines = record::read_metrics(&folder.join(METRICS))?;
        for line in &mut lines {
            if let Metric::Train { seconds, .. } | Metric::Eval { seconds, .. } | Metric::Ema { seconds, .. } = line {
                *seconds = 0.0;
            }
        }
        let outcome = outcome.map(|outcome| Outcome { seconds: 0.0, ..outcome });
        let text = format!("{outcome:?} {lines:?}");
        Ok((outcome, lines, text))
    }

    const METRICS: &str = "metrics.jsonl";
    const CHECKPOINT: &str = "checkpoint.safetensors";
    const NEVER: u64 = u64::MAX;

    fn step_of(line: &Metric) -> u64 {
        match line {
            Metric::Train { step, .. } | Metric::Eval { step, .. } => *step,
            Metric::Ema { step, .. } | Metric::Probe { step, .. } => *step,
        }
    }

    #[test]
    fn losses_that_are_read_late_make_the_same_records() -> Result<()> {
        let go = AtomicBool::new(false);
        let (mut diverged_at, mut ended) = (BTreeSet::new(), 0);
        let others = [
            ("adamw", 1e9, true),
            ("sam:base=adamw", 1e9, true),
            ("sgd:lr=1e30", f64::INFINITY, false),
            ("sophia", 1e9, true),
            ("lbfgs:max_iter=3", 1e9, false),
            ("schedule_free_adamw", 1e9, true),
            ("prodigy", 1e9, true),
        ];
        let growing = [0.0, 60.0, 90.0, 110.0, 130.0].map(|bound| ("sgd:lr=10", bound, true));
        let all = (1..=6).flat_map(|seed| growing.map(|run| (run, seed))).chain(others.map(|run| (run, 3)));
        for ((optimizer, max_loss, clips), seed) in all {
            let config = config(optimizer, max_loss, 47);
            let config = TrialConfig { seed, clip: config.clip.filter(|_| clips), ..config };
            let [at_once, late, saved] = [(); 3].map(|()| tempfile::tempdir());
            let expected = train(&config, true, at_once?.path(), NEVER, &go)?;
            assert_eq!(train(&config, false, late?.path(), NEVER, &go)?.2, expected.2, "{optimizer}, {max_loss}");
            // A checkpoint is of a step whose losses were read: what goes on from the last one ends in the same way.
            let saved = saved?;
            for _ in 0..2 {
                assert_eq!(
                    train(&config, false, saved.path(), 7, &go)?.2,
                    expected.2,
                    "{optimizer}, {max_loss}, saved"
                );
            }
            assert!(saved.path().join(CHECKPOINT).exists() || expected.1.iter().all(|line| step_of(line) <= 7));

            let (Some(outcome), lines, _) = expected else { panic!("{optimizer}, {max_loss}: it was stopped") };
            assert_eq!(lines.last().map(step_of), Some(outcome.steps));
            if outcome.diverged {
                let cause = outcome.cause.unwrap_or_default();
                assert!(cause.contains(&format!("at step {}", outcome.steps)), "{cause}");
                diverged_at.insert(outcome.steps);
            } else {
                assert_eq!(outcome.steps, config.steps);
                ended += 1;
            }
        }
        // At the first update, at one that is read anyway, and at several that are not.
        println!("diverged at {diverged_at:?}, {ended} ended");
        assert!(diverged_at.contains(&1) && diverged_at.iter().filter(|step| **step % 10 > 1).count() >= 3);
        assert!(ended >= 3);
        Ok(())
    }

    /// What is evaluated elsewhere changes nothing of training; it has statistics of its own, and goes on to the bit.
    #[test]
    fn averages_are_evaluated_beside_the_weights_and_resumed_to_the_bit() -> Result<()> {
        let go = AtomicBool::new(false);
        let with = |optimizer: &str, model: &str, ema, lookahead| {
            let config = config(optimizer, 1e9, 31);
            TrialConfig { model: model.to_owned(), ema, lookahead, evaluate_every: 8, ..config }
        };
        let of = |lines: &[Metric], is_ema: bool| -> Vec<String> {
            let own = lines.iter().filter(|line| matches!(line, Metric::Ema { .. }) == is_ema);
            own.map(|line| format!("{line:?}")).collect()
        };
        for (optimizer, model, ema, lookahead) in [
            ("adamw", "mlp", Some(0.9), None),
            ("sgd:lr=0.05", "cnn4:norm=batch", Some(0.9), Some(5)),
            ("sam:base=adamw", "mlp", Some(0.5), None),
            ("schedule_free_sgd", "cnn4:norm=batch", None, None),
            ("adamw", "mlp", None, Some(5)),
            // Its first layer is fitted before the first update.
            ("muon", "speednet:width=4", Some(0.9), None),
        ] {
            let what = format!("{optimizer} {model} {ema:?} {lookahead:?}");
            let [whole, parts, raw] = [(); 3].map(|()| tempfile::tempdir());
            let (whole, parts, raw) = (whole?, parts?, raw?);
            let config = with(optimizer, model, ema, lookahead);
            let expected = train(&config, true, whole.path(), NEVER, &go)?;
            let Some(outcome) = &expected.0 else { panic!("{what}: it was stopped") };
            for every in [7, 7, 3] {
                assert_eq!(train(&config, true, parts.path(), every, &go)?.2, expected.2, "{what}, saved");
            }
            let lines = of(&expected.1, true);
            assert_eq!(lines.len(), if ema.is_some() { 4 } else { 0 }, "{what}: {lines:?}");
            assert_eq!(outcome.ema_loss.is_some(), ema.is_some(), "{what}");
            let plain = train(&with(optimizer, model, None, None), true, raw.path(), NEVER, &go)?;
            let is_same = of(&plain.1, false) == of(&expected.1, false);
            assert_eq!(is_same, lookahead.is_none(), "{what}: an average leaves training alone, Lookahead does not");
            if let (Some(average), Some(last)) = (outcome.ema_loss, outcome.final_loss) {
                assert!(average != last && average.is_finite(), "{what}: {average}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_stop_between_two_readings_loses_no_loss() -> Result<()> {
        let config = config("adamw", 1e9, 400);
        let (whole, stopped) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let expected = train(&config, true, whole.path(), NEVER, &AtomicBool::new(false))?;
        let stop = AtomicBool::new(false);
        let is_there = |file: &str| stopped.path().join(file).exists();
        let mut stops = 0;
        loop {
            stop.store(false, Relaxed);
            let written = || std::fs::metadata(stopped.path().join(METRICS)).map_or(0, |file| file.len());
            let before = written();
            let result = thread::scope(|scope| {
                let run = scope.spawn(|| train(&config, false, stopped.path(), NEVER, &stop));
                // As soon as there is another line, at whatever update that finds the run.
                while written() <= before && !run.is_finished() {
                    thread::yield_now();
                }
                stop.store(true, Relaxed);
                run.join().expect("no panic")
            })?;
            match result.0 {
                Some(_) => {
                    assert_eq!(result.2, expected.2);
                    break;
                }
                None => {
                    assert!(is_there(CHECKPOINT));
                    stops += 1;
                }
            }
        }
        assert!(stops > 3, "it was stopped {stops} times");
        Ok(())
    }
}
