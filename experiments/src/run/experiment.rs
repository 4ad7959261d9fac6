//! From the options of a binary to its results: checks everything, tunes, trains all trials, writes the records.

use super::{
    console::Console,
    environment, halving,
    jobs::Jobs,
    live::{Live, PAGES_APART},
    memory, optimizer,
    plan::{self, Group, Plan},
    resolve::{
        MAX_LOSS, check_around, check_options, check_schedule, check_spaces, check_trials, count_seeds, datasets,
        reopen, resolve, texts,
    },
    search::{Search, Searched},
    space::Space,
    split::Split,
    summarise::summarise,
    trial::{Trial, make_distinct},
    tune,
    watcher::Watcher,
    workload::{LoadedWorkload, check_memory},
};
use crate::{
    config::{
        device::DeviceName,
        options::{Options, Settings},
        study::Study,
    },
    problem::{
        data::{dataset::Dataset, loaded::Data, source::Hub},
        models::registry,
    },
    record::{
        experiment::{Continuation, ExperimentRecord, Versions},
        files::{write_json, write_text},
        out_dir::OutDir,
        run::Run,
        summary::Summary,
        trial::{Phase, TrialConfig, TrialRecord},
        workload::Workload,
    },
};
use anyhow::{Context, Result, bail};
use optim::{AnyRule, Rule, recipes};
use std::{
    collections::BTreeMap,
    fs,
    num::{NonZeroU64, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// How an experiment ended.
pub enum End {
    /// With a summary.
    Finished(Box<Summary>),
    /// By Ctrl-C or SIGTERM; it can be resumed.
    Interrupted,
}

/// An experiment whose every part is known to be valid.
pub struct Experiment {
    study: Study,
    settings: Settings,
    console: Console,
    out: OutDir,
    /// By data set.
    data: BTreeMap<String, Data>,
    plan: Plan,
    device: DeviceName,
    seeds: Vec<u64>,
    threads: usize,
    jobs: usize,
    /// The record of the experiment as it was found, where the run is resumed.
    before: Option<ExperimentRecord>,
    /// All records, where it had finished, and is not to have more seeds.
    finished: Option<Run>,
}

impl Experiment {
    /// Checks all options, takes OUT and reads the data. It ends early, with an error, once `stop` is set.
    ///
    /// # Errors
    /// When an option is wrong, OUT cannot be written to, or the data cannot be read; then OUT is as it was before.
    pub fn prepare(study: Study, options: &Options, console: Console, stop: &Arc<AtomicBool>) -> Result<Self> {
        let (reopened, settings) = match &options.out {
            Some(path) if options.resume => {
                let (out, record, settings) = reopen(&study, path, &options.settings)?;
                (Some((out, record)), settings)
            }
            _ => (None, Settings::of(options)?.absolute()?),
        };
        check_options(&study, &settings)?;
        let settings = resolve(&study, settings)?;
        let device: DeviceName = settings.device.as_deref().unwrap_or("cpu").parse()?;
        settings.precision.unwrap_or_default().set(&device.open()?)?;
        let datasets = datasets(&settings)?;
        let models = texts(&settings.model)?;
        for model in &models {
            registry::parse(model)?;
        }
        let optimizers = match &settings.recipe {
            Some(recipe) => vec![recipes::by_name(recipe, 1)?.rule.boxed().to_string()],
            None => texts(&settings.opt)?,
        };
        let schedules = texts(&settings.schedule)?;
        let rules: Vec<AnyRule> = optimizers.iter().map(|text| optimizer::parse(text)).collect::<Result<_>>()?;
        // There may be more groups; but so many that it takes long to plan them are refused now.
        let lists = [models.len(), schedules.len(), settings.batch_size.len(), settings.clip.len()];
        let lists = lists.into_iter().fold(rules.len(), |product, n| product.saturating_mul(n.max(1)));
        check_trials(&settings, lists.saturating_mul(datasets.len()))?;
        for (text, rule) in optimizers.iter().zip(&rules) {
            Space::choose(text, rule, &settings.space)?;
            check_around(&settings, text, rule)?;
            for schedule in &schedules {
                check_schedule(schedule, rule, settings.steps)?;
            }
        }
        check_spaces(&settings.space, &rules)?;

        let (out, before) = match (reopened, &options.out) {
            (Some((out, before)), _) => (out, Some(before)),
            (None, Some(path)) => (OutDir::create(path)?, None),
            (None, None) => (OutDir::create_default(study.name)?, None),
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
            let plan = plan::plan(&study, &settings, &datasets, &data, &hashes)?;
            let (seeds, n) = (count_seeds(&settings), plan.groups.len());
            check_trials(&settings, n)?;
            for LoadedWorkload { record, .. } in &plan.workloads {
                let whole = data[&record.dataset].steps_for_tuning(record.steps);
                let rungs = halving::rungs(whole, data[&record.dataset].steps_for_tuning(record.evaluate_every));
                let trials = |budget: NonZeroU64| budget.get().div_ceil(rungs[0]);
                match settings.tune_steps {
                    Some(budget) if budget.get() < whole => {
                        bail!(
                            "--tune-steps {budget}: it must be at least {whole}, the updates of a whole tuning trial"
                        );
                    }
                    Some(budget) if trials(budget) > tune::MOST as u64 => {
                        bail!(
                            "--tune-steps {budget}: it must be at most {}",
                            rungs[0].saturating_mul(tune::MOST as u64)
                        );
                    }
                    _ => {}
                }
            }
            let tune = settings.tune.map_or(0, NonZeroUsize::get);
            let jobs = match settings.jobs {
                Some(jobs) => jobs.get(),
                None if device == DeviceName::Cpu => threads,
                None => 1,
            };
            let spread = settings.tune_steps.map_or(tune, |_| tune::MOST);
            let jobs = jobs.min(n * seeds.max(spread));
            let averages = u64::from(settings.ema.is_some()) + u64::from(settings.lookahead.is_some());
            for (at, LoadedWorkload { record, model, shape, tensors, .. }) in plan.workloads.iter().enumerate() {
                let own = plan.groups.iter().filter(|group| group.workload == at);
                let state = own.map(|group| memory::of_optimizer(&group.rule, tensors, averages)).max().unwrap_or(0);
                check_memory(model, shape, &settings, record.batch_size, (jobs, state))?;
            }
            anyhow::Ok((data, plan, (0..seeds as u64).collect::<Vec<_>>(), jobs))
        };
        let (data, plan, seeds, jobs) = prepare().inspect_err(|_| {
            if before.is_none() {
                out.discard();
            }
        })?;
        let has_finished =
            |before: &ExperimentRecord| seeds.len() <= before.seeds.len() && out.path().join("summary.json").exists();
        let finished = before.as_ref().is_some_and(has_finished).then(|| Run::read(out.path())).transpose()?;
        Ok(Self { study, settings, console, out, data, plan, device, seeds, threads, jobs, before, finished })
    }

    /// The folder that the results go to.
    pub fn out(&self) -> &OutDir {
        &self.out
    }

    /// Tunes, trains all trials and writes OUT; `watcher` is told of it, and writes the pages that are made of the records. It ends early,
    /// with everything saved, once `stop` is set; a trial that fails sets it.
    ///
    /// # Errors
    /// When a file cannot be written or candle fails. A trial that diverges is a result.
    pub fn run(&self, stop: &Arc<AtomicBool>, watcher: &impl Watcher) -> Result<End> {
        let out = self.out.path();
        let file = |name: &str| out.join(name);
        let record = match &self.before {
            Some(before) => {
                self.console.log_to(&file("log.txt"))?;
                if let Some(run) = &self.finished {
                    if !watcher.is_written(out) {
                        watcher.write(run)?;
                    }
                    return Ok(End::Finished(Box::new(run.summary.clone())));
                }
                // First, since it is what tells that all trials of the record have ended.
                if file("summary.json").exists() {
                    fs::remove_file(file("summary.json"))
                        .with_context(|| format!("cannot remove `{}`", file("summary.json").display()))?;
                }
                let record = self.continued(before)?;
                if record != *before {
                    write_json(&file("experiment.json"), &record)?;
                }
                record
            }
            None => {
                // Without a record there is nothing to go on with.
                let record = self.record()?;
                write_json(&file("experiment.json"), &record).inspect_err(|_| self.out.discard())?;
                self.console.log_to(&file("log.txt"))?;
                record
            }
        };
        // The process may have been killed between the two.
        write_text(&file("config.toml"), &self.settings.to_toml()?)?;
        tracing::info!(
            experiment = self.study.name,
            groups = self.plan.groups.len(),
            seeds = self.seeds.len(),
            resumed = self.before.is_some(),
            "begins"
        );
        for Group { config, rule, workload, .. } in &self.plan.groups {
            if let Some(split) = Split::of(rule, &self.plan.workloads[*workload].tensors) {
                tracing::info!("{}: {split}", config.name);
            }
        }

        let tune = self.settings.tune.map_or(0, NonZeroUsize::get);
        let live = Live::new(out, record, [tune, self.seeds.len()].map(|trials| trials * self.plan.groups.len()));
        let write_so_far = |run: &Run, so_far: &str| watcher.write_so_far(run, so_far);
        let on_end = |trial: &TrialRecord, is_new: bool| {
            if is_new && trial.outcome.as_ref().is_some_and(|outcome| outcome.diverged) {
                watcher.diverged(out, trial);
            }
            live.ended(&trial.id);
        };
        let jobs = Jobs {
            out: &self.out,
            console: &self.console,
            device: self.device,
            threads: self.threads,
            jobs: self.jobs,
            checkpoint_every: self.settings.checkpoint_every,
            on_end: &on_end,
        };
        let trained = thread::scope(|scope| {
            let _over = live.until_dropped();
            scope.spawn(|| live.keep(PAGES_APART, write_so_far));
            self.train(&jobs, stop)
        });
        let Ok(Some(summary)) = trained else {
            if let Err(error) = live.interrupted(write_so_far) {
                tracing::warn!("the page of the run cannot be made: {error:#}");
            }
            return trained.map(|_| End::Interrupted);
        };
        write_json(&file("summary.json"), &summary)?;
        watcher.write(&Run::read(out)?)?;
        tracing::info!("ended");
        Ok(End::Finished(Box::new(summary)))
    }

    /// Trains all trials; none when it was stopped.
    fn train(&self, jobs: &Jobs<'_>, stop: &Arc<AtomicBool>) -> Result<Option<Summary>> {
        let search = Search {
            plan: &self.plan,
            jobs,
            data: &self.data,
            trial: &|group, rule| self.trial(group, rule, Phase::Tune, tune::SEED),
            stop,
        };
        let Some(searched) = search.run(&self.settings)? else { return Ok(None) };
        let picked = search.pick(&searched);
        let finals = self.final_trials(&picked)?;
        let whole: Vec<_> = finals.iter().map(|trial| (trial, None)).collect();
        let Some(outcomes) = jobs.run_all(&whole, &self.data, stop)? else { return Ok(None) };
        let Searched { trials, outcomes: tuned, spaces } = &searched;
        let (tuning, finals) = ((trials.as_slice(), tuned.as_slice()), (finals.as_slice(), outcomes.as_slice()));
        summarise(&self.study, &self.plan, (&picked, spaces), tuning, finals).map(Some)
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

    fn trial(&self, group: usize, rule: &AnyRule, phase: Phase, seed: u64) -> Result<Trial<'_>> {
        let Group { config: group_config, workload, clip, .. } = &self.plan.groups[group];
        let loaded = &self.plan.workloads[*workload];
        let LoadedWorkload { record: workload, model, dataset, .. } = loaded;
        let defaults = dataset.spec().defaults;
        let data = &self.data[&workload.dataset];
        let (steps, evaluate_every) = match phase {
            Phase::Final => (workload.steps, workload.evaluate_every),
            Phase::Tune => (data.steps_for_tuning(workload.steps), data.steps_for_tuning(workload.evaluate_every)),
        };
        let schedule = optimizer::parse_schedule(&group_config.schedule, rule, steps)?;
        let config = TrialConfig {
            phase,
            dataset: workload.dataset.clone(),
            text_sha256: match data {
                Data::Text(text) if *dataset == Dataset::Text => Some(text.sha256.clone()),
                _ => None,
            },
            model: model.to_string(),
            optimizer: rule.to_string(),
            schedule: schedule.to_string(),
            clip: *clip,
            ema: self.settings.ema,
            lookahead: self.settings.lookahead.map(NonZeroU64::get),
            decay_matrices_only: defaults.decay_matrices_only,
            batch_size: workload.batch_size,
            steps,
            evaluate_every,
            evaluate_on: workload.evaluate_on,
            augment: self.settings.augment.unwrap_or(defaults.augment),
            max_loss: self.settings.max_loss.unwrap_or(MAX_LOSS),
            probe: self.study.probe,
            device: self.device.to_string(),
            ops: self.settings.ops.unwrap_or_default(),
            precision: self.settings.precision.unwrap_or_default(),
            seed,
            repeat: None,
        };
        let (id, group_name) = (config.id(), group_config.name.clone());
        let record = TrialRecord { id, group: group_name, config, outcome: None, metrics_sha256: None };
        let name = format!("{}, seed {seed}", group_config.name);
        Ok(Trial { workload: loaded, group, name, tried: String::new(), rule: rule.clone(), schedule, record })
    }

    fn final_trials(&self, rules: &[AnyRule]) -> Result<Vec<Trial<'_>>> {
        let pairs = self.seeds.iter().flat_map(|&seed| (0..self.plan.groups.len()).map(move |group| (seed, group)));
        let trials = pairs.map(|(seed, group)| self.trial(group, &rules[group], Phase::Final, seed));
        let mut trials = trials.collect::<Result<Vec<_>>>()?;
        make_distinct(&mut trials, std::iter::empty());
        Ok(trials)
    }

    fn record(&self) -> Result<ExperimentRecord> {
        Ok(ExperimentRecord {
            experiment: self.study.name.to_owned(),
            command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            started: environment::now()?,
            config: serde_json::to_value(&self.settings)?,
            workloads: self.plan.workloads.iter().map(|workload| workload.record.clone()).collect(),
            groups: self.plan.groups.iter().map(|group| group.config.clone()).collect(),
            seeds: self.seeds.clone(),
            device: self.device.to_string(),
            versions: environment::versions(),
            commit: environment::commit(),
            continued: Vec::new(),
        })
    }
}
