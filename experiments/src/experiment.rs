//! From the options of a binary to its results: checks everything, trains all trials, writes the records.

use crate::{
    console::Console,
    data::{Dataset, ImageData},
    device::DeviceName,
    models::{self, ModelSpec},
    optimizer,
    options::Options,
    plot::{self, GroupMetrics},
    record::{
        self, ExperimentRecord, GroupConfig, MetricsWriter, OutDir, Phase, TrialConfig, TrialRecord, Versions, Workload,
    },
    stats::Estimate,
    summary::{GroupSummary, Summary, TrialSummary},
    train::{self, Outcome, Training},
};
use anyhow::{Context, Result, bail};
use optim::{AnyRule, Rule, Schedule};
use std::{
    fs,
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// What a binary compares.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Its name, as in `summary.json`.
    pub name: &'static str,
    /// The question that it answers, in a line.
    pub about: &'static str,
    /// The optimizers where `--opt` gives none.
    pub optimizers: &'static [&'static str],
    /// The groups it compares: each is trained with every seed.
    pub groups: fn(&Options, &[String]) -> Vec<GroupConfig>,
}

/// How a data set is used where the options do not say it.
pub(crate) struct Defaults {
    pub(crate) epochs: u64,
    pub(crate) batch_size: usize,
    augment: bool,
}

pub(crate) fn defaults(dataset: Dataset) -> Defaults {
    match dataset {
        Dataset::Digits => Defaults { epochs: 40, batch_size: 32, augment: false },
        Dataset::FashionMnist => Defaults { epochs: 5, batch_size: 64, augment: false },
        Dataset::Cifar10 => Defaults { epochs: 10, batch_size: 128, augment: true },
    }
}

impl Group {
    /// All that sets it apart from other groups, written out.
    fn text(&self) -> String {
        format!("{} {}", self.rule, self.schedule)
    }
}

/// An experiment whose every part is known to be valid.
pub struct Experiment {
    comparison: Comparison,
    console: Console,
    out: OutDir,
    data: ImageData,
    dataset: Dataset,
    model: &'static ModelSpec,
    device: DeviceName,
    groups: Vec<Group>,
    seeds: Vec<u64>,
    batch_size: usize,
    steps: u64,
    evaluate_every: u64,
    augment: bool,
    threads: usize,
    jobs: usize,
}

struct Group {
    config: GroupConfig,
    rule: AnyRule,
    schedule: Schedule,
}

impl Experiment {
    /// Checks all options, takes OUT and reads the data.
    ///
    /// # Errors
    /// When an option is wrong, OUT cannot be written to, or the data cannot be read; then OUT is as it was before.
    pub fn prepare(comparison: Comparison, options: &Options, console: Console) -> Result<Self> {
        let dataset: Dataset = options.dataset.parse()?;
        let model = models::by_name(options.model.as_deref().unwrap_or(dataset.spec().default_model))?;
        let device: DeviceName = options.device.parse()?;
        device.open()?;
        let optimizers = match options.opt.as_slice() {
            [] => comparison.optimizers.iter().map(|text| text.to_string()).collect(),
            given => given.to_vec(),
        };
        let configs = (comparison.groups)(options, &optimizers);
        let defaults = defaults(dataset);
        let batch_size = options.batch_size.map_or(defaults.batch_size, NonZeroUsize::get);
        let images = dataset.spec().train;
        if batch_size > images {
            bail!("batch size {batch_size}: {dataset} has {images} training images");
        }
        let steps_per_epoch = (images / batch_size) as u64;
        let (steps, evaluate_every) = match (options.steps, options.epochs) {
            (Some(steps), _) => {
                let steps = steps.get() as u64;
                (steps, evaluation_interval(steps, steps_per_epoch, dataset.spec().test.div_ceil(batch_size) as u64))
            }
            (None, epochs) => {
                let epochs = epochs.map_or(defaults.epochs, |epochs| epochs.get() as u64);
                (epochs.saturating_mul(steps_per_epoch), steps_per_epoch)
            }
        };
        let groups = configs.into_iter().map(|config| {
            let rule = optimizer::parse(&config.optimizer)?;
            let schedule = optimizer::parse_schedule(&config.schedule, &rule, steps)?;
            Ok(Group { config, rule, schedule })
        });
        let groups = groups.collect::<Result<Vec<_>>>()?;
        for (i, group) in groups.iter().enumerate() {
            if let Some(same) = groups[..i].iter().find(|other| other.text() == group.text()) {
                bail!("`{}` and `{}` are the same", same.config.name, group.config.name);
            }
        }
        let seeds: Vec<u64> = (0..options.seeds.get() as u64).collect();
        let threads = match options.threads {
            Some(threads) => threads.get(),
            None => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        };
        let jobs = match options.jobs {
            Some(jobs) => jobs.get(),
            None if device == DeviceName::Cpu => threads,
            None => 1,
        };
        let jobs = jobs.min(seeds.len() * groups.len());

        let out = match &options.out {
            Some(path) => OutDir::create(path)?,
            None => OutDir::create_default(comparison.name)?,
        };
        let data = match dataset.load(options.data_dir.as_deref(), console.bars()) {
            Ok(data) => data,
            Err(error) => {
                out.discard();
                return Err(error.into());
            }
        };
        Ok(Self {
            comparison,
            console,
            out,
            data,
            dataset,
            model,
            device,
            groups,
            seeds,
            batch_size,
            steps,
            evaluate_every,
            augment: defaults.augment,
            threads,
            jobs,
        })
    }

    /// The folder that the results go to.
    pub fn out(&self) -> &OutDir {
        &self.out
    }

    /// Trains all trials and writes OUT.
    ///
    /// # Errors
    /// When a file cannot be written or candle fails. A trial that diverges is a result.
    pub fn run(&self) -> Result<Summary> {
        let trials = self.trials();
        self.console.log_to(&self.out.path().join("log.txt"))?;
        record::write_json(&self.out.path().join("experiment.json"), &self.record(&trials))?;
        tracing::info!(
            experiment = self.comparison.name,
            dataset = %self.dataset,
            model = self.model.name,
            trials = trials.len(),
            steps = self.steps,
            "begins"
        );

        let next = AtomicUsize::new(0);
        let ended: Mutex<Vec<Option<Result<Outcome>>>> = Mutex::new(trials.iter().map(|_| None).collect());
        thread::scope(|scope| -> Result<()> {
            for _ in 0..self.jobs {
                let threads = (self.threads / self.jobs).max(1);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                let (next, ended, trials) = (&next, &ended, &trials);
                scope.spawn(move || {
                    pool.install(|| {
                        while let Some(trial) = trials.get(next.fetch_add(1, Relaxed)) {
                            let outcome = self.run_trial(trial);
                            if outcome.is_err() {
                                next.store(trials.len(), Relaxed);
                            }
                            let mut ended = ended.lock().expect("no holder of the lock panics");
                            ended[trial.index] = Some(outcome);
                        }
                    });
                });
            }
            Ok(())
        })?;

        let mut summaries = Vec::new();
        for (trial, outcome) in trials.iter().zip(ended.into_inner().expect("no holder of the lock panics")) {
            let Some(outcome) = outcome else { continue };
            let outcome = outcome.with_context(|| format!("trial {}", trial.record.id))?;
            let TrialRecord { id, group, config, .. } = trial.record.clone();
            summaries.push(TrialSummary::new(id, group, config.seed, &outcome));
        }
        let summary = self.summarise(summaries);
        record::write_json(&self.out.path().join("summary.json"), &summary)?;
        record::write_text(&self.out.path().join("learning_curves.svg"), &self.learning_curves(&trials)?)?;
        tracing::info!("ended");
        Ok(summary)
    }

    /// All trials, seed by seed, so that every group is seen early.
    fn trials(&self) -> Vec<Trial<'_>> {
        let pairs = self.seeds.iter().flat_map(|&seed| self.groups.iter().map(move |group| (seed, group)));
        pairs
            .enumerate()
            .map(|(index, (seed, group))| {
                let config = TrialConfig {
                    phase: Phase::Final,
                    dataset: self.dataset.to_string(),
                    text_sha256: None,
                    clip: None,
                    decay_matrices_only: false,
                    max_loss: f64::MAX,
                    probe: false,
                    model: self.model.name.to_owned(),
                    optimizer: group.rule.to_string(),
                    schedule: group.schedule.to_string(),
                    batch_size: self.batch_size,
                    steps: self.steps,
                    evaluate_every: self.evaluate_every,
                    augment: self.augment,
                    device: self.device.to_string(),
                    seed,
                };
                let record = TrialRecord { id: config.id(), group: group.config.name.clone(), config, outcome: None };
                Trial { index, group, record }
            })
            .collect()
    }

    fn run_trial(&self, trial: &Trial) -> Result<Outcome> {
        let TrialRecord { id, group, config, .. } = &trial.record;
        let file = |name: &str| self.out.trial_file(id, name);
        fs::create_dir_all(self.out.trial_file(id, ""))?;
        record::write_json(&file("trial.json"), &trial.record)?;
        let mut metrics = MetricsWriter::create(file("metrics.jsonl"))?;
        let training = Training {
            data: &self.data,
            model: self.model,
            rule: trial.group.rule.clone(),
            schedule: trial.group.schedule.clone(),
            batch_size: self.batch_size,
            steps: self.steps,
            evaluate_every: self.evaluate_every,
            augment: self.augment,
            seed: config.seed,
        };
        let name = format!("{group}, seed {}", config.seed);
        tracing::info!(trial = id, "begins");
        let bar = self.console.trial(&name, self.steps);
        let outcome = training.run(&self.device.open()?, &mut metrics, &bar)?;
        drop(bar);
        metrics.sync()?;
        record::write_json(
            &file("trial.json"),
            &TrialRecord { outcome: Some(outcome.clone()), ..trial.record.clone() },
        )?;
        self.console.line(&format!("{name}: {}", describe(&outcome)));
        match &outcome.cause {
            Some(cause) => tracing::info!(trial = id, cause, "diverged"),
            None => tracing::info!(trial = id, loss = outcome.final_loss, accuracy = outcome.final_accuracy, "ended"),
        }
        Ok(outcome)
    }

    fn summarise(&self, trials: Vec<TrialSummary>) -> Summary {
        let none = Estimate::of(&[]);
        let group = |group: &Group| {
            GroupSummary {
                name: group.config.name.clone(),
                dataset: self.dataset.to_string(),
                model: self.model.name.to_owned(),
                optimizer: group.rule.spec().name.to_owned(),
                schedule: group.schedule.to_string(),
                hyperparameters: optimizer::hyperparameters(&group.rule),
                n: 0,
                loss: none,
                accuracy: none,
                seconds: none,
                diverged: 0,
            }
            .measure(&trials)
        };
        Summary {
            experiment: self.comparison.name.to_owned(),
            dataset: self.dataset.to_string(),
            model: self.model.name.to_owned(),
            groups: self.groups.iter().map(group).collect(),
            trials,
            tuning: Vec::new(),
        }
    }

    fn learning_curves(&self, trials: &[Trial]) -> Result<String> {
        let group = |group: &Group| {
            let own = trials.iter().filter(|trial| trial.record.group == group.config.name);
            let read = |trial: &Trial| record::read_metrics(&self.out.trial_file(&trial.record.id, "metrics.jsonl"));
            Ok(GroupMetrics { name: group.config.name.clone(), trials: own.map(read).collect::<Result<_>>()? })
        };
        let groups = self.groups.iter().map(group).collect::<Result<Vec<_>>>()?;
        let seeds = if self.seeds.len() == 1 {
            "1 seed".to_owned()
        } else {
            format!("{} seeds, mean and range", self.seeds.len())
        };
        let title = format!("{}: {} on {} ({seeds})", self.comparison.name, self.model.name, self.dataset);
        plot::learning_curves(&title, &groups)
    }

    fn record(&self, trials: &[Trial]) -> ExperimentRecord {
        let _ = trials;
        ExperimentRecord {
            experiment: self.comparison.name.to_owned(),
            command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            started: jiff::ZonedDateTime::now().to_string(),
            config: serde_json::Value::Null,
            workloads: vec![Workload {
                dataset: self.dataset.to_string(),
                model: self.model.name.to_owned(),
                classes: self.data.classes,
                parameters: 0,
                batch_size: self.batch_size,
                steps: self.steps,
                steps_per_epoch: train::steps_per_epoch(&self.data, self.batch_size),
                evaluate_every: self.evaluate_every,
                floor: None,
            }],
            groups: self.groups.iter().map(|group| group.config.clone()).collect(),
            seeds: self.seeds.clone(),
            device: self.device.to_string(),
            versions: Versions {
                experiments: env!("CARGO_PKG_VERSION").to_owned(),
                candle: env!("DESCENT_CANDLE_VERSION").to_owned(),
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                processor: None,
            },
            commit: option_env!("DESCENT_COMMIT").map(str::to_owned),
        }
    }
}

struct Trial<'a> {
    index: usize,
    group: &'a Group,
    record: TrialRecord,
}

/// Updates between evaluations where a run's length is given in updates: ten in a run, but at least one in an epoch, and not
/// so many that they see more images than training does.
fn evaluation_interval(steps: u64, steps_per_epoch: u64, test_batches: u64) -> u64 {
    steps.div_ceil(10).max(test_batches).min(steps_per_epoch)
}

fn describe(outcome: &Outcome) -> String {
    match (&outcome.cause, outcome.final_loss, outcome.final_accuracy) {
        (None, Some(loss), Some(accuracy)) => {
            format!("test loss {loss:.4}, accuracy {:.2} %, {:.1} s", accuracy * 100.0, outcome.seconds)
        }
        (cause, ..) => format!("diverged: {}", cause.as_deref().unwrap_or("no evaluation")),
    }
}
