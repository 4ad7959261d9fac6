//! From the options of a binary to its results: checks everything, tunes, trains all trials, writes the records.

use crate::{
    config::{
        device::DeviceName,
        options::{Norm, Options, Settings},
        precision::Precision,
    },
    problem::{
        batches::steps_per_epoch,
        data::{Data, Dataset, Hub},
        models::{self, ModelConfig, Operations, Parameters, Shape},
    },
    record::{
        self, Continuation, ExperimentRecord, GroupConfig, MetricsWriter, OutDir, Phase, Run, TrialConfig, TrialRecord,
        Versions, Workload,
        summary::{GroupSummary, Searched, Summary, TrialSummary},
        tensorboard::Events,
    },
    report,
    run::{
        console::{self, Console},
        memory, optimizer,
        train::{Outcome, Saving, Training},
        tune::{self, Space},
        write_queue::Background,
    },
    stats::Estimate,
};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use optim::{AnyRule, Rule, Schedule, recipes};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// What a binary compares.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Its name, as in `summary.json`.
    pub name: &'static str,
    /// The question that it answers, in a line.
    pub about: &'static str,
    /// The data set where none is given.
    pub dataset: &'static str,
    /// The model where none is given; the data set's own otherwise.
    pub model: Option<&'static str>,
    /// The optimizers where none is given.
    pub optimizers: &'static [&'static str],
    /// The schedules where none is given; their numbers are for [`Comparison::steps`] and hold for no other length.
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
    /// The groups it compares on a data set and a model; the settings have at least one optimizer and one schedule.
    pub groups: fn(&Settings, dataset: &str, model: &str) -> Result<Vec<GroupConfig>>,
}

/// The options that not all binaries have.
const SPECIAL: [&str; 4] = ["--lr", "--norm", "--tune", "--space"];

/// What a resumed run can be told anew: no result depends on it, but for the number of seeds, of which each has its own results.
const AT_RESUME: [&str; 5] = ["--threads", "--jobs", "--data-dir", "--text", "--seeds"];

/// Threads, and trials at a time, for each core: more of them only wait for each other.
const PER_CORE: usize = 4;

/// The most trials of a run: so many are planned in a second.
const MOST_TRIALS: usize = 100_000;

/// How long a run is where the options do not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Epochs(u64),
    Steps(u64),
}

/// How a data set is used where the options do not say it.
pub(crate) struct Defaults {
    pub(crate) length: Length,
    pub(crate) batch_size: usize,
    augment: bool,
    decay_matrices_only: bool,
}

pub(crate) fn defaults(dataset: Dataset) -> Defaults {
    let images = |epochs, batch_size, augment| Defaults {
        length: Length::Epochs(epochs),
        batch_size,
        augment,
        decay_matrices_only: false,
    };
    match dataset {
        Dataset::Digits => images(40, 32, false),
        Dataset::FashionMnist => images(5, 64, false),
        Dataset::Cifar10 => images(10, 128, true),
        Dataset::Tinyshakespeare | Dataset::Language | Dataset::Text => {
            Defaults { length: Length::Steps(2_000), batch_size: 12, augment: false, decay_matrices_only: true }
        }
    }
}

/// How an experiment ended.
pub enum End {
    /// With a summary.
    Finished(Box<Summary>),
    /// By Ctrl-C or SIGTERM; it can be resumed.
    Interrupted,
}

/// What groups are compared on, with its data.
struct Ground {
    record: Workload,
    model: ModelConfig,
    shape: Shape,
    dataset: Dataset,
}

struct Group {
    config: GroupConfig,
    /// The index of what it is compared on.
    ground: usize,
    rule: AnyRule,
    /// What is searched for it, with `--tune`.
    space: Space,
}

/// An experiment whose every part is known to be valid.
pub struct Experiment {
    comparison: Comparison,
    settings: Settings,
    console: Console,
    out: OutDir,
    /// By data set.
    data: BTreeMap<String, Data>,
    grounds: Vec<Ground>,
    groups: Vec<Group>,
    device: DeviceName,
    seeds: Vec<u64>,
    threads: usize,
    jobs: usize,
    /// The record of the experiment as it was found, where the run is resumed.
    before: Option<ExperimentRecord>,
}

impl Experiment {
    /// Checks all options, takes OUT and reads the data. It ends early, with an error, once `stop` is set.
    ///
    /// # Errors
    /// When an option is wrong, OUT cannot be written to, or the data cannot be read; then OUT is as it was before.
    pub fn prepare(
        comparison: Comparison,
        options: &Options,
        console: Console,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let (reopened, settings) = match &options.out {
            Some(path) if options.resume => {
                let (out, record, settings) = reopen(&comparison, path, &options.settings)?;
                (Some((out, record)), settings)
            }
            _ => (None, Settings::of(options)?.absolute()?),
        };
        check_options(&comparison, &settings)?;
        let settings = resolve(&comparison, settings)?;
        let device: DeviceName = settings.device.as_deref().unwrap_or("cpu").parse()?;
        settings.precision.unwrap_or_default().set(&device.open()?)?;
        let datasets = datasets(&settings)?;
        for model in &settings.model {
            models::parse(model)?;
        }
        let texts = match &settings.recipe {
            Some(recipe) => vec![recipes::by_name(recipe, 1)?.rule.boxed().to_string()],
            None => settings.opt.clone(),
        };
        let rules: Vec<AnyRule> = texts.iter().map(|text| optimizer::parse(text)).collect::<Result<_>>()?;
        for (text, rule) in texts.iter().zip(&rules) {
            Space::choose(text, rule, &settings.space)?;
            for schedule in &settings.schedule {
                check_schedule(schedule, rule, settings.steps)?;
            }
        }
        check_spaces(&settings.space, &rules)?;

        let (out, before) = match (reopened, &options.out) {
            (Some((out, before)), _) => (out, Some(before)),
            (None, Some(path)) => (OutDir::create(path)?, None),
            (None, None) => (OutDir::create_default(comparison.name)?, None),
        };
        let threads = settings.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let prepare = || {
            let hub = Hub { stop: Arc::clone(stop), ..Hub::new(console.bars()) };
            let (mut data, mut hashes) = (BTreeMap::new(), BTreeMap::new());
            for dataset in &datasets {
                let loaded = dataset.load(settings.data_dir.as_deref(), settings.text.as_deref(), &hub)?;
                hashes.insert(dataset.to_string(), loaded.sha256());
                data.insert(dataset.to_string(), loaded);
                if stop.load(Relaxed) {
                    bail!("interrupted");
                }
            }
            for Workload { dataset, data_sha256, .. } in before.iter().flat_map(|before| &before.workloads) {
                let (now, then) = (hashes.get(dataset), data_sha256.as_ref());
                if let (Some(now), Some(then)) = (now, then.filter(|then| now != Some(*then))) {
                    bail!(
                        "data set `{dataset}`: its data are not those that the run began with (sha256 {now}, then {then})"
                    );
                }
            }
            let (grounds, groups) = lay_out(&comparison, &settings, &datasets, &data, &hashes)?;
            let seeds = settings.seeds.map_or(3, NonZeroUsize::get);
            let (tune, n) = (settings.tune.map_or(0, NonZeroUsize::get), groups.len());
            // Neither number is above the most that is allowed.
            if n * (seeds + tune) > MOST_TRIALS {
                let tuned = if tune > 0 { format!(" and --tune {tune}") } else { String::new() };
                bail!(
                    "--seeds {seeds}{tuned}: {n} groups have {} trials; a run may have {MOST_TRIALS}",
                    n * (seeds + tune)
                );
            }
            let jobs = match settings.jobs {
                Some(jobs) => jobs.get(),
                None if device == DeviceName::Cpu => threads,
                None => 1,
            };
            let jobs = jobs.min(n * seeds.max(tune));
            for ground in &grounds {
                check_memory(&ground.model, &ground.shape, &settings, ground.record.batch_size, jobs)?;
            }
            anyhow::Ok((data, grounds, groups, (0..seeds as u64).collect(), jobs))
        };
        let (data, grounds, groups, seeds, jobs) = prepare().inspect_err(|_| {
            if before.is_none() {
                out.discard();
            }
        })?;
        Ok(Self { comparison, settings, console, out, data, grounds, groups, device, seeds, threads, jobs, before })
    }

    /// The folder that the results go to.
    pub fn out(&self) -> &OutDir {
        &self.out
    }

    /// Tunes, trains all trials and writes OUT. It ends early, with everything saved, once `stop` is set; a trial that fails sets it.
    ///
    /// # Errors
    /// When a file cannot be written or candle fails. A trial that diverges is a result.
    pub fn run(&self, stop: &Arc<AtomicBool>) -> Result<End> {
        let file = |name: &str| self.out.path().join(name);
        match &self.before {
            Some(before) => {
                self.console.log_to(&file("log.txt"))?;
                let has_new_seeds = self.seeds.len() > before.seeds.len();
                if file("summary.json").exists() && !has_new_seeds {
                    let run = Run::read(self.out.path())?;
                    if !file("report.html").exists() {
                        self.write_report(&run)?;
                    }
                    return Ok(End::Finished(Box::new(run.summary)));
                }
                // First, since it is what tells that all trials of the record have ended.
                if has_new_seeds && file("summary.json").exists() {
                    fs::remove_file(file("summary.json"))
                        .with_context(|| format!("cannot remove `{}`", file("summary.json").display()))?;
                }
                let record = self.continued(before)?;
                if record != *before {
                    record::write_json(&file("experiment.json"), &record)?;
                }
            }
            None => {
                // Without a record there is nothing to go on with.
                record::write_json(&file("experiment.json"), &self.record()?).inspect_err(|_| self.out.discard())?;
                self.console.log_to(&file("log.txt"))?;
            }
        }
        // The process may have been killed between the two.
        record::write_text(&file("config.toml"), &self.settings.to_toml()?)?;
        tracing::info!(
            experiment = self.comparison.name,
            groups = self.groups.len(),
            seeds = self.seeds.len(),
            resumed = self.before.is_some(),
            "begins"
        );

        let tuning = self.tuning_trials()?;
        let Some(tuned) = self.run_all(&tuning, stop)? else { return Ok(End::Interrupted) };
        let picked = self.pick(&tuning, &tuned)?;
        let finals = self.final_trials(&picked)?;
        let Some(outcomes) = self.run_all(&finals, stop)? else { return Ok(End::Interrupted) };

        let summary = self.summarise(&picked, (&tuning, &tuned), (&finals, &outcomes))?;
        record::write_json(&file("summary.json"), &summary)?;
        self.write_report(&Run::read(self.out.path())?)?;
        tracing::info!("ended");
        Ok(End::Finished(Box::new(summary)))
    }

    fn write_report(&self, run: &Run) -> Result<()> {
        for (name, svg) in report::pictures(run)? {
            record::write_text(&self.out.path().join(name), &svg)?;
        }
        let html = report::html(std::slice::from_ref(run), &report::Targets::default())?;
        record::write_text(&self.out.path().join("report.html"), &html)
    }

    /// The record of the run as `before`, with what this program was told and is.
    fn continued(&self, before: &ExperimentRecord) -> Result<ExperimentRecord> {
        let now = self.record()?;
        let mut record = before.clone();
        (record.config, record.seeds) = (now.config, now.seeds);
        let latest = before.continued.last().map_or((&before.versions, &before.commit), |c| (&c.versions, &c.commit));
        if latest != (&now.versions, &now.commit) || record.config != before.config {
            let Versions { candle, processor, .. } = &now.versions;
            for (what, then, now) in [
                ("commit", before.commit.as_ref(), now.commit.as_ref()),
                ("candle", Some(&before.versions.candle), Some(candle)),
                ("processor", before.versions.processor.as_ref(), processor.as_ref()),
            ] {
                if then != now {
                    let name = |name: Option<&String>| name.map_or("unknown".to_owned(), String::clone);
                    tracing::warn!(
                        "{what} {} began the run, and {} goes on with it: trials of the two may differ in more than their seed",
                        name(then),
                        name(now)
                    );
                }
            }
            record.continued.push(Continuation {
                command_line: now.command_line,
                started: now.started,
                versions: now.versions,
                commit: now.commit,
            });
        }
        Ok(record)
    }

    fn trial(&self, group: usize, rule: &AnyRule, phase: Phase, seed: u64) -> Result<Trial> {
        let Group { config: group_config, ground, .. } = &self.groups[group];
        let Ground { record: workload, model, dataset, .. } = &self.grounds[*ground];
        let defaults = defaults(*dataset);
        let schedule = optimizer::parse_schedule(&group_config.schedule, rule, workload.steps)?;
        let config = TrialConfig {
            phase,
            dataset: workload.dataset.clone(),
            text_sha256: match &self.data[&workload.dataset] {
                Data::Text(text) if *dataset == Dataset::Text => Some(text.sha256.clone()),
                _ => None,
            },
            model: model.to_string(),
            optimizer: rule.to_string(),
            schedule: schedule.to_string(),
            clip: self.settings.clip.filter(|clip| *clip > 0.0),
            decay_matrices_only: defaults.decay_matrices_only,
            batch_size: workload.batch_size,
            steps: workload.steps,
            evaluate_every: workload.evaluate_every,
            augment: defaults.augment,
            max_loss: self.settings.max_loss.unwrap_or(MAX_LOSS),
            probe: self.comparison.probe,
            device: self.device.to_string(),
            ops: self.settings.ops.unwrap_or_default(),
            precision: self.settings.precision.unwrap_or_default(),
            seed,
        };
        let (id, group_name) = (config.id(), group_config.name.clone());
        let record = TrialRecord { id, group: group_name, config, outcome: None, metrics_sha256: None };
        let name = format!("{}, seed {seed}", group_config.name);
        Ok(Trial { group, name, tried: String::new(), rule: rule.clone(), schedule, record })
    }

    /// Trial by trial of each group, so that every group is seen early.
    fn tuning_trials(&self) -> Result<Vec<Trial>> {
        let count = self.settings.tune.map_or(0, NonZeroUsize::get);
        let pairs = (0..count).flat_map(|index| (0..self.groups.len()).map(move |group| (index, group)));
        pairs
            .map(|(index, group)| {
                let Group { config, rule, space, .. } = &self.groups[group];
                let trial = self.trial(group, &space.point(rule, index)?, Phase::Tune, tune::SEED)?;
                let name = format!("{}, tuning {} of {count}", config.name, index + 1);
                let tried = format!(" with {}", space.values(&trial.rule));
                Ok(Trial { name, tried, ..trial })
            })
            .collect()
    }

    /// The rule of each group: as given, or as picked by its tuning trials.
    fn pick(&self, trials: &[Trial], outcomes: &[Outcome]) -> Result<Vec<AnyRule>> {
        let pick = |(index, group): (usize, &Group)| {
            let own: Vec<(&Trial, &Outcome)> =
                trials.iter().zip(outcomes).filter(|(trial, _)| trial.group == index).collect();
            if own.is_empty() {
                return group.rule.clone();
            }
            let best = tune::pick(&own.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>());
            let (trial, outcome) = own[best];
            let name = &group.config.name;
            let loss = outcome
                .final_loss
                .map_or("no loss: all diverged".to_owned(), |loss| format!("validation loss {loss:.4}"));
            let warning = searched(group, &trial.rule).warning();
            let edge = warning.map_or(String::new(), |warning| format!("; {warning}: --space can widen it"));
            self.console.line(&format!("{name}: picked {} ({loss}){edge}", trial.rule));
            tracing::info!(group = name, picked = %trial.rule, edge, "tuned");
            trial.rule.clone()
        };
        Ok(self.groups.iter().enumerate().map(pick).collect())
    }

    fn final_trials(&self, rules: &[AnyRule]) -> Result<Vec<Trial>> {
        let pairs = self.seeds.iter().flat_map(|&seed| (0..self.groups.len()).map(move |group| (seed, group)));
        pairs.map(|(seed, group)| self.trial(group, &rules[group], Phase::Final, seed)).collect()
    }

    /// The outcomes of `trials`, in order; none when it was stopped.
    fn run_all(&self, trials: &[Trial], stop: &Arc<AtomicBool>) -> Result<Option<Vec<Outcome>>> {
        let tuning_data: BTreeMap<&str, Data> = match trials.first() {
            Some(trial) if trial.record.config.phase == Phase::Tune => {
                self.data.iter().map(|(name, data)| (name.as_str(), data.split_for_tuning())).collect()
            }
            _ => BTreeMap::new(),
        };
        let data = |trial: &Trial| {
            let name = trial.record.config.dataset.as_str();
            tuning_data.get(name).unwrap_or(&self.data[name])
        };
        let overall = self.console.overall(trials.len() as u64);
        let background = Background::start(Arc::clone(stop));
        let next = AtomicUsize::new(0);
        let ended: Mutex<Vec<Option<Result<Option<Outcome>>>>> = Mutex::new(trials.iter().map(|_| None).collect());
        thread::scope(|scope| -> Result<()> {
            for job in 0..self.jobs {
                // What does not divide goes to the first.
                let threads = self.threads / self.jobs + usize::from(job < self.threads % self.jobs);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build()?;
                let (next, ended, data, overall, background) = (&next, &ended, &data, &overall, &background);
                scope.spawn(move || {
                    let _guard = StopsOnPanic(stop);
                    pool.install(|| {
                        loop {
                            let index = next.fetch_add(1, Relaxed);
                            let Some(trial) = trials.get(index) else { break };
                            let outcome = self.run_trial(trial, data(trial), background, stop);
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
        background.finish()?;
        let mut outcomes = Vec::new();
        let mut stopped = false;
        for (trial, outcome) in trials.iter().zip(ended.into_inner().expect("no holder of the lock panics")) {
            match outcome.transpose().with_context(|| format!("trial {}", trial.record.id))?.flatten() {
                Some(outcome) => outcomes.push(outcome),
                None => stopped = true,
            }
        }
        Ok((!stopped).then_some(outcomes))
    }

    /// What need not be there before it returns is written in the background.
    fn run_trial(
        &self,
        trial: &Trial,
        data: &Data,
        background: &Background,
        stop: &AtomicBool,
    ) -> Result<Option<Outcome>> {
        let TrialRecord { id, config, .. } = &trial.record;
        let (name, file) = (&trial.name, |name: &str| self.out.trial_file(id, name));
        let is_new = !file("trial.json").exists();
        if !is_new {
            let folder = self.out.trial_file(id, "");
            let again = |error| anyhow::anyhow!("{error:#}; without `{}` it begins anew", folder.display());
            let record: TrialRecord = record::read_json(&file("trial.json")).map_err(again)?;
            if record.config != *config {
                bail!("`{}` is of another config", file("trial.json").display());
            }
            if let Some(outcome) = record.outcome {
                TrialRecord::read(&self.out.trial_file(id, "")).map_err(again)?;
                // The process may have been killed between the outcome and this.
                let _ = fs::remove_file(file(CHECKPOINT));
                return Ok(Some(outcome));
            }
        }
        if stop.load(Relaxed) {
            return Ok(None);
        }
        let folder = self.out.trial_file(id, "");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let (path, record) = (file("trial.json"), trial.record.clone());
        background.later(move || record::write_json(&path, &record))?;
        let events = Events::new(self.out.path().join("tensorboard").join(id), &trial.record)?;
        let mut metrics = MetricsWriter::open(file("metrics.jsonl"))?.with_events(events);
        let ground = &self.grounds[self.groups[trial.group].ground];
        let training = Training {
            data,
            model: &ground.model,
            shape: ground.shape,
            rule: trial.rule.clone(),
            schedule: trial.schedule.clone(),
            config,
        };
        let saving = Saving {
            path: file(CHECKPOINT),
            every: self.settings.checkpoint_every.map_or(CHECKPOINT_EVERY, NonZeroU64::get),
            apart: if self.settings.checkpoint_every.is_some() { Duration::ZERO } else { CHECKPOINTS_APART },
        };
        tracing::info!(trial = id, resumed = !is_new, "begins");
        let bar = self.console.trial(name, config.steps);
        let outcome = training.run(&self.device.open()?, &mut metrics, Some(&saving), &bar, stop)?;
        drop(bar);
        let Some(outcome) = outcome else { return Ok(None) };
        let metrics_sha256 = Some(metrics.sha256());
        let record = TrialRecord { outcome: Some(outcome.clone()), metrics_sha256, ..trial.record.clone() };
        let (path, ended) = (file("trial.json"), outcome.clone());
        background.later(move || {
            metrics.end(&ended)?;
            // The trial has ended once its outcome is there, with all else.
            record::write_json(&path, &record)?;
            // What ended needs no checkpoint.
            let _ = fs::remove_file(&saving.path);
            Ok(())
        })?;
        self.console.line(&format!("{name}: {}{}", describe(&outcome), trial.tried));
        match &outcome.cause {
            Some(cause) => tracing::info!(trial = id, cause, "diverged"),
            None => tracing::info!(trial = id, loss = outcome.final_loss, accuracy = outcome.final_accuracy, "ended"),
        }
        Ok(Some(outcome))
    }

    fn summarise(
        &self,
        rules: &[AnyRule],
        tuning: (&[Trial], &[Outcome]),
        finals: (&[Trial], &[Outcome]),
    ) -> Result<Summary> {
        let summaries = |(trials, outcomes): (&[Trial], &[Outcome])| -> Vec<TrialSummary> {
            let summary = |(trial, outcome): (&Trial, &Outcome)| {
                let TrialRecord { id, group, config, .. } = &trial.record;
                TrialSummary::new(id.clone(), group.clone(), config.seed, outcome)
            };
            trials.iter().zip(outcomes).map(summary).collect()
        };
        let trials = summaries(finals);
        let none = Estimate::of(&[]);
        let group = |(group, rule): (&Group, &AnyRule)| {
            let workload = &self.grounds[group.ground].record;
            let schedule = optimizer::parse_schedule(&group.config.schedule, rule, workload.steps)?;
            let summary = GroupSummary {
                name: group.config.name.clone(),
                dataset: workload.dataset.clone(),
                model: workload.model.clone(),
                optimizer: rule.spec().name.to_owned(),
                schedule: schedule.to_string(),
                hyperparameters: optimizer::hyperparameters(rule),
                searched: self.settings.tune.map(|_| searched(group, rule)),
                n: 0,
                median_loss: None,
                loss: none,
                accuracy: none,
                seconds: none,
                diverged: 0,
            };
            Ok(summary.measure(&trials))
        };
        let names = |of: fn(&Workload) -> &str| {
            let mut names: Vec<&str> = Vec::new();
            for ground in &self.grounds {
                if !names.contains(&of(&ground.record)) {
                    names.push(of(&ground.record));
                }
            }
            names.join(", ")
        };
        Ok(Summary {
            experiment: self.comparison.name.to_owned(),
            dataset: names(|workload| &workload.dataset),
            model: names(|workload| &workload.model),
            groups: self.groups.iter().zip(rules).map(group).collect::<Result<_>>()?,
            tuning: summaries(tuning),
            trials,
            peak_memory_bytes: memory::peak(),
        })
    }

    fn record(&self) -> Result<ExperimentRecord> {
        Ok(ExperimentRecord {
            experiment: self.comparison.name.to_owned(),
            command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            started: now()?,
            config: serde_json::to_value(&self.settings)?,
            workloads: self.grounds.iter().map(|ground| ground.record.clone()).collect(),
            groups: self.groups.iter().map(|group| group.config.clone()).collect(),
            seeds: self.seeds.clone(),
            device: self.device.to_string(),
            versions: Versions {
                experiments: env!("CARGO_PKG_VERSION").to_owned(),
                candle: env!("DESCENT_CANDLE_VERSION").to_owned(),
                os: std::env::consts::OS.to_owned(),
                arch: std::env::consts::ARCH.to_owned(),
                processor: processor(),
            },
            commit: option_env!("DESCENT_COMMIT").map(str::to_owned),
            continued: Vec::new(),
        })
    }
}

/// What tuning searched for `group`, of which it picked `rule`.
fn searched(group: &Group, rule: &AnyRule) -> Searched {
    Searched { space: group.space.to_string(), at_edge: group.space.at_edge(rule) }
}

/// A training loss above it counts as diverged.
const MAX_LOSS: f64 = 1_000.0;
/// The file of a trial's checkpoint.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Updates between two checkpoints of a trial.
pub const CHECKPOINT_EVERY: u64 = 200;
/// The least time between two, where nothing else is asked for.
pub const CHECKPOINTS_APART: Duration = Duration::from_secs(5);

/// Sets its flag when its thread panics, so that the other trials save themselves before the program ends.
struct StopsOnPanic<'a>(&'a AtomicBool);

impl Drop for StopsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

struct Trial {
    /// The index of its group.
    group: usize,
    /// What it is called on the console.
    name: String,
    /// What tuning tries by it, for the console.
    tried: String,
    rule: AnyRule,
    schedule: Schedule,
    record: TrialRecord,
}

/// Takes the folder of a run to go on with, whose settings may be changed as `given` says.
fn reopen(comparison: &Comparison, path: &Path, given: &Settings) -> Result<(OutDir, ExperimentRecord, Settings)> {
    given.check_storable()?;
    let given_names = given.given()?;
    if let Some(other) = given_names.iter().find(|key| !AT_RESUME.contains(&key.as_str())) {
        bail!("`{other}`: a resumed run has the config in OUT; only {} can be given", AT_RESUME.join(", "));
    }
    let out = OutDir::reopen(path)?;
    let record: ExperimentRecord = record::read_json(&path.join("experiment.json"))?;
    if record.experiment != comparison.name {
        bail!("OUT `{}` is of `{}`, not of `{}`", path.display(), record.experiment, comparison.name);
    }
    let in_config = || format!("the config in `{}`", path.join("experiment.json").display());
    // A run of an older program may have been told one.
    let lost = record.config.as_object().into_iter().flatten().find(|(_, value)| value.is_null());
    if let Some((key, _)) = lost {
        bail!("{}: `{key}` was a number that JSON does not have, and is lost", in_config());
    }
    let stored: Settings = serde_json::from_value(record.config.clone()).with_context(in_config)?;
    let given = given.clone().absolute()?;
    if let Some(seeds) = given.seeds.filter(|seeds| seeds.get() < record.seeds.len()) {
        bail!("--seeds {seeds}: the run has {}; resumed, it can have more, not fewer", record.seeds.len());
    }
    // The run may have begun on a machine with more cores.
    let most = NonZeroUsize::new(most_threads());
    let within = |stored: Option<NonZeroUsize>| stored.map(|n| most.map_or(n, |most| n.min(most)));
    let settings = Settings {
        threads: given.threads.or(within(stored.threads)),
        jobs: given.jobs.or(within(stored.jobs)),
        data_dir: given.data_dir.or(stored.data_dir),
        text: given.text.or(stored.text),
        seeds: given.seeds.or(stored.seeds),
        ..stored
    };
    Ok((out, record, settings))
}

/// The most threads, and the most trials at a time.
fn most_threads() -> usize {
    PER_CORE * thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Checks options that do not need the data, each alone and together.
fn check_options(comparison: &Comparison, settings: &Settings) -> Result<()> {
    for key in settings.given()? {
        if SPECIAL.contains(&key.as_str()) && !comparison.own.contains(&key.as_str()) {
            bail!("`{key}` is no option of {}", comparison.name);
        }
    }
    if settings.recipe.is_some() && !(settings.opt.is_empty() && settings.schedule.is_empty()) {
        bail!("`--recipe` is an optimizer and a schedule: it goes without `--opt` and `--schedule`");
    }
    if settings.scale_recipe && settings.recipe.is_none() {
        bail!("`--scale-recipe` fits a recipe to the length of the run: it goes with `--recipe`");
    }
    if !settings.space.is_empty() && settings.tune.is_none() {
        bail!("`--space` is what `--tune` searches: it goes with `--tune`");
    }
    if let Some(text) = &settings.text
        && !datasets(settings)?.contains(&Dataset::Text)
    {
        bail!(
            "--text {}: --dataset {} does not learn from it; leave --dataset out, or add `--dataset text`",
            text.display(),
            settings.dataset.join(" --dataset ")
        );
    }
    for (name, value, allowed, fits) in [
        ("--clip", settings.clip, "a number >= 0", (|x| x >= 0.0) as fn(f64) -> bool),
        ("--max-loss", settings.max_loss, "a number > 0", |x| x > 0.0),
    ] {
        if let Some(value) = value.filter(|value| !fits(*value)) {
            bail!("{name} {value}: it must be {allowed}");
        }
    }
    report::Targets { accuracy: settings.target_accuracy, loss: settings.target_loss }.check()?;
    for (name, value, most, why) in [
        ("--tune", settings.tune, tune::MOST, ""),
        ("--seeds", settings.seeds, MOST_TRIALS, ""),
        ("--threads", settings.threads, most_threads(), ", four for each core"),
        ("--jobs", settings.jobs, most_threads(), ", four for each core"),
    ] {
        if let Some(value) = value.filter(|value| value.get() > most) {
            bail!("{name} {value}: it must be at most {most}{why}");
        }
    }
    if let Some(lr) = settings.lr.iter().find(|lr| !(**lr > 0.0 && lr.is_finite())) {
        bail!("--lr {lr}: it must be a number > 0");
    }
    Ok(())
}

/// A length that no usual schedule is too long for.
const ANY_LENGTH: u64 = 1_000;

/// Checks what can be checked before the length of the run is known, which may depend on the data: all else than whether the
/// schedule's numbers fit the length.
fn check_schedule(text: &str, rule: &AnyRule, steps: Option<NonZeroU64>) -> Result<()> {
    let error = match optimizer::parse_schedule(text, rule, steps.map_or(ANY_LENGTH, NonZeroU64::get)) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match error.downcast_ref() {
        Some(optim::Error::ScheduleOutOfRange { .. }) if steps.is_none() => Ok(()),
        _ => Err(error),
    }
}

/// Checks that each of `spaces` is searched.
fn check_spaces(spaces: &[String], rules: &[AnyRule]) -> Result<()> {
    let names: Vec<&str> = rules.iter().map(|rule| rule.spec().name).collect();
    let mut seen = HashSet::new();
    for text in spaces {
        let name = optim::by_name(text.split(':').next().unwrap_or_default())?.spec().name;
        if !names.contains(&name) {
            bail!("--space {text}: no optimizer of the run is `{name}` (they are {})", names.join(", "));
        }
        if !seen.insert(name) {
            bail!("--space {text}: `{name}` has a space already");
        }
    }
    Ok(())
}

/// Checks that `jobs` trials at a time can fit into the memory.
fn check_memory(model: &ModelConfig, shape: &Shape, settings: &Settings, batch_size: usize, jobs: usize) -> Result<()> {
    // What a GPU has is not known here; there, a trial that does not fit is an error.
    if settings.device.as_deref().is_some_and(|device| device != "cpu") {
        return Ok(());
    }
    let precision = settings.precision.unwrap_or_default();
    let needed = memory::least(&model.least(shape), batch_size, precision.dtype()).saturating_mul(jobs as u64);
    let Some(available) = memory::limit().filter(|limit| needed > *limit) else { return Ok(()) };
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let at_a_time = if jobs > 1 { format!(" with {jobs} trials at a time (--jobs)") } else { String::new() };
    bail!(
        "model {model}: to train it on {batch_size} examples an update takes at least {:.1} GB{at_a_time}, and there are {:.1} GB",
        gigabytes(needed),
        gigabytes(available)
    )
}

/// The time, to the second, with its zone.
fn now() -> Result<String> {
    Ok(jiff::ZonedDateTime::now().round(jiff::Unit::Second)?.to_string())
}

/// Fills in what every run has.
fn resolve(comparison: &Comparison, mut settings: Settings) -> Result<Settings> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    if settings.dataset.is_empty() && settings.text.is_none() {
        settings.dataset = vec![comparison.dataset.to_owned()];
    }
    if settings.model.is_empty() {
        settings.norm = settings.norm.or(comparison.norm);
        settings.model = comparison.model.map(str::to_owned).into_iter().collect();
    }
    if settings.recipe.is_none() {
        if settings.opt.is_empty() {
            settings.opt = texts(comparison.optimizers);
            if settings.tune.is_some() {
                // Nobody asked for these values.
                settings.opt = settings.opt.iter().map(|text| Space::free(text)).collect::<Result<_>>()?;
            }
        }
        if settings.schedule.is_empty() {
            settings.schedule = texts(comparison.schedules);
            if settings.steps.is_some() || settings.epochs.is_some() {
                settings.schedule.iter_mut().for_each(|text| text.truncate(text.find(':').unwrap_or(text.len())));
            }
        }
    }
    if settings.lr.is_empty() {
        settings.lr = comparison.peaks.to_vec();
    }
    if settings.epochs.is_none() && settings.steps.is_none() && settings.recipe.is_none() {
        settings.steps = comparison.steps.and_then(NonZeroU64::new);
    }
    settings.seeds = settings.seeds.or(NonZeroUsize::new(3));
    settings.device = settings.device.or(Some("cpu".to_owned()));
    settings.ops = settings.ops.or(Some(Operations::default()));
    settings.precision = settings.precision.or(Some(Precision::default()));
    settings.max_loss = settings.max_loss.or(Some(MAX_LOSS));
    Ok(settings)
}

fn datasets(settings: &Settings) -> Result<Vec<Dataset>> {
    if settings.text.is_some() && settings.dataset.is_empty() {
        return Ok(vec![Dataset::Text]);
    }
    let mut datasets: Vec<Dataset> = Vec::new();
    for name in &settings.dataset {
        let dataset = name.parse()?;
        if datasets.contains(&dataset) {
            bail!("data set `{name}` is given twice");
        }
        datasets.push(dataset);
    }
    Ok(datasets)
}

/// What groups are compared on, and the groups.
fn lay_out(
    comparison: &Comparison,
    settings: &Settings,
    datasets: &[Dataset],
    data: &BTreeMap<String, Data>,
    hashes: &BTreeMap<String, String>,
) -> Result<(Vec<Ground>, Vec<Group>)> {
    if settings.data_dir.is_some() && !datasets.iter().any(|dataset| dataset.has_files()) {
        tracing::warn!("--data-dir is not read: no data set of the run has files in a folder");
    }
    let pairs: Vec<(Dataset, String)> = datasets
        .iter()
        .flat_map(|dataset| match settings.model.as_slice() {
            [] => vec![(*dataset, dataset.spec().default_model.to_owned())],
            models => models.iter().map(|model| (*dataset, model.clone())).collect(),
        })
        .collect();
    let (mut grounds, mut groups): (Vec<Ground>, Vec<Group>) = (Vec::new(), Vec::new());
    for (dataset, model) in &pairs {
        let (data, hash) = (&data[&dataset.to_string()], &hashes[&dataset.to_string()]);
        let mut settings = settings.clone();
        let first = ground(*dataset, model, data, hash, &settings)?;
        if let Some(name) = &settings.recipe {
            let recipe = recipes::by_name(name, first.record.steps_per_epoch)?;
            let steps = first.record.steps;
            if recipe.steps != steps && !settings.scale_recipe {
                tracing::warn!(
                    "recipe {name} is meant for {} updates, and the run has {steps}: --scale-recipe fits it to that",
                    recipe.steps
                );
            }
            let recipe = if settings.scale_recipe { recipe.scaled(steps)? } else { recipe };
            settings.opt = vec![recipe.rule.boxed().to_string()];
            settings.schedule = vec![recipe.schedule.to_string()];
        }
        for mut config in (comparison.groups)(&settings, &dataset.to_string(), model)? {
            for (factor, values) in [
                ("dataset", datasets.iter().map(Dataset::to_string).collect::<Vec<_>>()),
                ("model", settings.model.clone()),
            ] {
                if values.len() > 1 {
                    let value = if factor == "dataset" { &config.dataset } else { &config.model };
                    config.name = format!("{}, {value}", config.name);
                    config.factors.insert(factor.to_owned(), value.clone());
                }
            }
            let own = ground(*dataset, &config.model, data, hash, &settings)?;
            let known = grounds.iter().position(|known| known.record == own.record);
            let at = known.unwrap_or_else(|| {
                grounds.push(own);
                grounds.len() - 1
            });
            let rule = optimizer::parse(&config.optimizer)?;
            let steps = grounds[at].record.steps;
            optimizer::parse_schedule(&config.schedule, &rule, steps)?;
            let space = Space::choose(&config.optimizer, &rule, &settings.space)?;
            if settings.tune.is_some() && !space.is_searchable() {
                bail!(
                    "`{}` leaves --tune nothing to search: what has one value in --opt or --space keeps it",
                    config.optimizer
                );
            }
            if schedule_fixes_lr(&config.schedule, &rule, steps)? {
                let who = if settings.tune.is_some() { Some("--tune") } else { None };
                let who = who.or(comparison.own.contains(&"--lr").then_some("--lr"));
                if let Some(who) = who {
                    bail!(
                        "schedule `{}` fixes the learning rate, which {who} is to choose: leave `lr` out",
                        config.schedule
                    );
                }
                if settings.recipe.is_none() && tune::gives(&config.optimizer, "lr") {
                    tracing::warn!(
                        "schedule `{}` fixes the learning rate: that of `{}` is not used",
                        config.schedule,
                        config.optimizer
                    );
                }
            }
            groups.push(Group { config, ground: at, rule, space });
        }
    }
    let (mut names, mut texts) = (HashSet::new(), HashMap::new());
    for group in &groups {
        let rule = if settings.tune.is_some() { group.space.point(&group.rule, 0)? } else { group.rule.clone() };
        let schedule = optimizer::parse_schedule(&group.config.schedule, &rule, grounds[group.ground].record.steps)?;
        let name = &group.config.name;
        if let Some(other) = texts.insert(format!("{rule} {schedule} {}", group.ground), name) {
            let once = if settings.tune.is_some() { " once tuned" } else { "" };
            bail!("`{other}` and `{name}` are the same{once}");
        }
        if !names.insert(name) {
            bail!("two groups are named `{name}`");
        }
    }
    Ok((grounds, groups))
}

/// Whether the schedule's values do not follow the optimizer's learning rate.
fn schedule_fixes_lr(text: &str, rule: &AnyRule, steps: u64) -> Result<bool> {
    let with = |lr: f64| -> Result<Schedule> {
        let mut rule = rule.clone();
        rule.set("lr", lr.into())?;
        optimizer::parse_schedule(text, &rule, steps)
    };
    Ok(with(1e-3)? == with(2e-3)?)
}

fn ground(dataset: Dataset, model: &str, data: &Data, hash: &str, settings: &Settings) -> Result<Ground> {
    let model = models::parse(model)?;
    let shape = model.shape(data)?;
    if let (Data::Text(text), Some(_)) = (data, settings.tune) {
        // The parts that tuning makes of the training text are shorter.
        model.shape(&Data::Text(text.split_for_tuning()))?;
    }
    let defaults = defaults(dataset);
    let batch_size = settings.batch_size.map_or(defaults.batch_size, NonZeroUsize::get);
    let steps_per_epoch = steps_per_epoch(data, &shape, batch_size);
    if steps_per_epoch == 0 || settings.tune.is_some() && steps_per_epoch < 2 {
        bail!("batch size {batch_size}: {dataset} has too few training examples for one batch");
    }
    let recipe = settings.recipe.as_deref().map(|name| recipes::by_name(name, steps_per_epoch)).transpose()?;
    let length = match (settings.steps, settings.epochs, recipe) {
        (Some(steps), ..) => Length::Steps(steps.get()),
        (None, Some(epochs), _) => Length::Epochs(epochs.get()),
        (None, None, Some(recipe)) if !settings.scale_recipe => Length::Steps(recipe.steps),
        (None, None, _) => defaults.length,
    };
    let (steps, evaluate_every) = match length {
        Length::Epochs(epochs) => (epochs.saturating_mul(steps_per_epoch), steps_per_epoch),
        Length::Steps(steps) => (steps, evaluation_interval(steps, steps_per_epoch, data, batch_size, &shape)),
    };
    // Before the model takes it.
    check_memory(&model, &shape, settings, batch_size, 1)?;
    let parameters = Parameters::new(0);
    model.build(&shape, parameters.builder(&Device::Cpu))?;
    let record = Workload {
        dataset: dataset.to_string(),
        data_sha256: Some(hash.to_owned()),
        model: model.to_string(),
        classes: data.classes(),
        parameters: parameters.count(),
        batch_size,
        steps,
        steps_per_epoch,
        evaluate_every,
        constant_loss: data.constant_loss(),
        floor: data.floor(),
        data_differs: dataset.fingerprint(data).differs,
    };
    Ok(Ground { record, model, shape, dataset })
}

/// Updates between evaluations where a run's length is given in updates: ten in a run, but at least one in an epoch of images,
/// and not so many that they see more examples than training does.
fn evaluation_interval(steps: u64, steps_per_epoch: u64, data: &Data, batch_size: usize, shape: &Shape) -> u64 {
    let tenth = steps.div_ceil(10);
    match (data, shape) {
        (Data::Images(images), _) => tenth.max(images.test.len().div_ceil(batch_size) as u64).min(steps_per_epoch),
        // Evaluating costs a third of training on as many characters.
        (Data::Text(text), Shape::Text { context, .. }) => {
            tenth.max((text.test.len() / (context * batch_size)) as u64).min(steps)
        }
        (Data::Text(_), Shape::Images(_)) => tenth,
    }
    .max(1)
}

fn describe(outcome: &Outcome) -> String {
    match (&outcome.cause, outcome.final_loss, outcome.final_accuracy) {
        (None, Some(loss), Some(accuracy)) => {
            format!("loss {loss:.4}, accuracy {:.2} %, {:.1} s", accuracy * 100.0, outcome.seconds)
        }
        (cause, ..) => format!("diverged: {}", cause.as_deref().unwrap_or("no evaluation")),
    }
}

/// The processor's name, where the system tells it.
fn processor() -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::ffi::OsString;

    const ANY: Comparison = Comparison {
        name: "any",
        about: "",
        dataset: "digits",
        model: None,
        optimizers: &["adam"],
        schedules: &["cosine"],
        norm: None,
        peaks: &[],
        steps: None,
        own: &SPECIAL,
        probe: false,
        groups: |_, _, _| Ok(Vec::new()),
    };

    /// What a run has to go by, if nothing is wrong with it.
    fn settings(args: &[OsString]) -> Result<Settings> {
        let args = [OsString::from("any")].into_iter().chain(args.iter().cloned());
        let options = Options::try_parse_from(args)?;
        let settings = Settings::of(&options)?.absolute()?;
        check_options(&ANY, &settings)?;
        resolve(&ANY, settings)
    }

    fn not_utf8() -> OsString {
        #[cfg(unix)]
        return std::os::unix::ffi::OsStringExt::from_vec(b"a\xff".to_vec());
        #[cfg(not(unix))]
        std::os::windows::ffi::OsStringExt::from_wide(&[0x61, 0xd800])
    }

    /// Odd values that an option takes, and such that it refuses, with what it needs beside it.
    fn values(key: &str) -> (Vec<OsString>, Vec<OsString>, &'static [&'static str]) {
        let path = (vec!["/x/ä b\"\\\n".into()], vec![not_utf8()], &[][..]);
        let all = |texts: &[&str]| texts.iter().map(OsString::from).collect::<Vec<_>>();
        let (taken, refused): (&[&str], &[&str]) = match key {
            "dataset" => (&["language"], &[]),
            "data_dir" | "text" => return path,
            "model" | "opt" | "schedule" => (&["a:b=\"\\\n,ä=1e400"], &[]),
            "recipe" => (&["llm"], &[]),
            "scale_recipe" => return (vec![], vec![], &["--recipe=llm"]),
            "lr" => (&["5e-324,1.7976931348623157e308", "0.1"], &["0", "-0.0", "inf", "1e400", "NaN", "-1"]),
            "norm" => (&["pre", "post", "both"], &["Pre"]),
            "tune" => (&["1", "65536"], &["0", "65537", "9223372036854775808", "18446744073709551615"]),
            "space" => return (all(&["adam:lr=\"\\\n"]), vec![], &["--tune=1"]),
            "target_accuracy" => (&["1", "5e-324"], &["0", "-0.0", "1.0000001", "inf", "NaN", "-1"]),
            "target_loss" => (&["5e-324", "1.7976931348623157e308"], &["0", "-0.0", "inf", "1e400", "NaN", "-1"]),
            "seeds" => {
                (&["1", "100000"], &["0", "100001", "4294967296", "9223372036854775808", "18446744073709551615"])
            }
            "epochs" | "steps" | "batch_size" | "checkpoint_every" => {
                (&["1", "9223372036854775807"], &["0", "-1", "9223372036854775808", "18446744073709551615"])
            }
            "clip" => (&["0", "-0.0", "5e-324", "1.7976931348623157e308"], &["-1", "inf", "1e400", "NaN"]),
            "max_loss" => (&["5e-324", "1.7976931348623157e308"], &["0", "-0.0", "-inf", "inf", "1e400", "NaN"]),
            "device" => (&["cpu", "cuda:18446744073709551615"], &[]),
            "ops" => (&["descent", "candle"], &["x"]),
            "precision" => (&["f32", "tf32", "bf16"], &["f16"]),
            "threads" | "jobs" => (&["1"], &["0", "100000", "9223372036854775808", "18446744073709551615"]),
            _ => panic!("no values for {key}: which odd ones does it take?"),
        };
        (all(taken), all(refused), &[])
    }

    #[test]
    fn every_value_that_is_taken_is_written_and_read_back_the_same() {
        for key in Settings::keys() {
            let name = format!("--{}", key.replace('_', "-"));
            let (taken, refused, beside) = values(&key);
            let args = |value: &OsString| -> Vec<OsString> {
                let mut arg = OsString::from(format!("{name}="));
                arg.push(value);
                [arg].into_iter().chain(beside.iter().map(OsString::from)).collect()
            };
            let mut taken: Vec<Vec<OsString>> = taken.iter().map(args).collect();
            if key == "scale_recipe" {
                taken.push(vec![name.clone().into(), beside[0].into()]);
            }
            assert!(!taken.is_empty());
            for args in taken {
                let settings = settings(&args).unwrap_or_else(|error| panic!("{args:?}: {error:#}"));
                let json: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("config.toml");
                fs::write(&file, settings.to_toml().unwrap()).unwrap();
                let options =
                    Options::try_parse_from(["any".into(), "--config".into(), file.into_os_string()]).unwrap();
                let toml = Settings::of(&options).unwrap();
                // As text, in which -0 is not 0.
                for (format, read) in [("JSON", json), ("TOML", toml)] {
                    assert_eq!(format!("{read:?}"), format!("{settings:?}"), "{args:?} in {format}");
                }
            }
            for value in refused {
                let message = crate::one_line(&settings(&args(&value)).expect_err(&format!("{name} {value:?}")));
                assert!(message.contains(&name), "{name} {value:?}: {message}");
            }
        }
    }

    #[test]
    fn a_schedule_is_checked_with_the_length_of_the_run() {
        let rule = optimizer::parse("adam").unwrap();
        let check = |text: &str, steps| check_schedule(text, &rule, NonZeroU64::new(steps));
        // Of no length, 0, is known which it is.
        for (text, steps) in [
            ("cosine_restarts:period=5", 0),
            ("cosine_restarts:period=5", 5_000),
            ("constant until 2000 then cosine_restarts:period=1", 0),
            ("constant until 2000 then cosine_restarts:period=1", 2_500),
        ] {
            check(text, steps).unwrap_or_else(|error| panic!("{text}, {steps}: {error:#}"));
        }
        for (text, steps, part) in [
            ("cosine_restarts:period=5", 5_001, "1000 periods"),
            ("cosine_restart", 0, "did you mean"),
            ("cosine:min=0", 0, "min"),
            ("cosine:min_lr=low", 0, "low"),
        ] {
            let message = format!("{:#}", check(text, steps).expect_err(text));
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
