//! What a run goes by: its options checked, alone and together, and filled in; those of a run that is resumed, from its records.

use super::{optimizer, space::Space, tune};
use crate::{
    config::{
        choice::{Choice, twice},
        operations::Operations,
        options::Settings,
        precision::Precision,
        study::{SPECIAL, Study},
        targets::Targets,
    },
    problem::data::dataset::Dataset,
    record::{experiment::ExperimentRecord, files::read_json, out_dir::OutDir},
};
use anyhow::{Context, Result, bail};
use optim::{AnyRule, Rule, text::SpecText};
use std::{
    collections::HashSet,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    thread,
};

/// What a resumed run can be told anew: no result depends on it, but for the number of seeds, of which each has its own results.
const AT_RESUME: [&str; 5] = ["--threads", "--jobs", "--data-dir", "--text", "--seeds"];

/// Threads, and trials at a time, for each core: more of them only wait for each other.
const PER_CORE: usize = 4;

/// The most trials of a run: so many are planned in a second.
pub const MOST_TRIALS: usize = 100_000;

/// A training loss above it counts as diverged.
pub const MAX_LOSS: f64 = 1_000.0;

/// The seeds of a run that is told nothing of them.
const SEEDS: usize = 3;

/// Takes the folder of a run to go on with, whose settings may be changed as `given` says.
pub fn reopen(study: &Study, path: &Path, given: &Settings) -> Result<(OutDir, ExperimentRecord, Settings)> {
    given.check_storable()?;
    let given_names = given.given()?;
    if let Some(other) = given_names.iter().find(|key| !AT_RESUME.contains(&key.as_str())) {
        bail!("`{other}`: a resumed run has the config in OUT; only {} can be given", AT_RESUME.join(", "));
    }
    let out = OutDir::reopen(path)?;
    let record: ExperimentRecord = read_json(&path.join("experiment.json"))?;
    if record.experiment != study.name {
        bail!("OUT `{}` is of `{}`, not of `{}`", path.display(), record.experiment, study.name);
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
pub fn check_options(study: &Study, settings: &Settings) -> Result<()> {
    for key in settings.given()? {
        if SPECIAL.contains(&key.as_str()) && !study.own.contains(&key.as_str()) {
            bail!("`{key}` is no option of {}", study.name);
        }
    }
    if settings.recipe.is_some() && !(settings.opt.is_empty() && settings.schedule.is_empty()) {
        bail!("`--recipe` is an optimizer and a schedule: it goes without `--opt` and `--schedule`");
    }
    if settings.scale_recipe && settings.recipe.is_none() {
        bail!("`--scale-recipe` fits a recipe to the length of the run: it goes with `--recipe`");
    }
    if !settings.space.is_empty() && !settings.tunes() {
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
    for (name, values, allowed, fits) in [
        ("--clip", settings.clip.as_slice(), "a number >= 0", (|x| x >= 0.0) as fn(f64) -> bool),
        ("--max-loss", settings.max_loss.as_slice(), "a number > 0", |x| x > 0.0),
        ("--ema", settings.ema.as_slice(), "a number in [0, 1)", |x| (0.0..1.0).contains(&x)),
    ] {
        if let Some(value) = values.iter().find(|value| !fits(**value)) {
            bail!("{name} {value}: it must be {allowed}");
        }
    }
    let texts = |values: &[f64]| values.iter().map(|value| (value + 0.0).to_string()).collect::<Vec<_>>();
    for (name, values) in [
        ("--batch-size", settings.batch_size.iter().map(ToString::to_string).collect()),
        ("--clip", texts(&settings.clip)),
        ("--lr", texts(&settings.lr)),
    ] {
        if let Some(value) = twice(values.iter().cloned()) {
            bail!("{name} {}: {value} is there twice", values.join(","));
        }
    }
    Targets { accuracy: settings.target_accuracy, loss: settings.target_loss }.check()?;
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

/// Checks that a run of `groups` groups has no more trials than a run may have.
pub fn check_trials(settings: &Settings, groups: usize) -> Result<()> {
    let (seeds, tune) = (count_seeds(settings), settings.tune.map_or(0, NonZeroUsize::get));
    // Neither number is above the most that is allowed.
    let trials = groups.saturating_mul(seeds + tune);
    if trials > MOST_TRIALS {
        let tuned = if tune > 0 { format!(" and --tune {tune}") } else { String::new() };
        bail!("--seeds {seeds}{tuned}: {groups} groups have {trials} trials; a run may have {MOST_TRIALS}");
    }
    Ok(())
}

/// The seeds of each group.
pub fn count_seeds(settings: &Settings) -> usize {
    settings.seeds.map_or(SEEDS, NonZeroUsize::get)
}

/// The texts that stand for the models, optimizers or schedules of a run.
pub fn texts(lists: &[String]) -> Result<Vec<String>> {
    Ok(Choice::of(lists, MOST_TRIALS)?.into_iter().map(|choice| choice.text).collect())
}

/// A length that no usual schedule is too long for.
const ANY_LENGTH: u64 = 1_000;

/// Checks what can be checked before the length of the run is known, which may depend on the data: all else than whether the
/// schedule's numbers fit the length.
pub fn check_schedule(text: &str, rule: &AnyRule, steps: Option<NonZeroU64>) -> Result<()> {
    let error = match optimizer::parse_schedule(text, rule, steps.map_or(ANY_LENGTH, NonZeroU64::get)) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match error.downcast_ref() {
        Some(optim::Error::ScheduleOutOfRange { .. }) if steps.is_none() => Ok(()),
        _ => Err(error),
    }
}

/// Checks that what goes around every optimizer goes around `rule`, which is `text`.
pub fn check_around(settings: &Settings, text: &str, rule: &AnyRule) -> Result<()> {
    let is_averaging = rule.evaluation_point().is_some();
    if let Some(decay) = settings.ema.filter(|_| is_averaging) {
        bail!("--ema {decay}: `{text}` averages its weights itself, and is evaluated with that average");
    }
    if let Some(every) = settings.lookahead.filter(|_| is_averaging || rule.quasi_newton().is_some()) {
        bail!("--lookahead {every}: it does not go around `{text}`, whose state knows where its last step ended");
    }
    if let Some(clip) = settings.clip.iter().find(|clip| **clip > 0.0 && rule.quasi_newton().is_some()) {
        bail!("--clip {clip}: `{text}` searches along a line, which clipping would bend");
    }
    if rule.quasi_newton().is_some() && rule.options().cautious {
        bail!("`{text}`: cautious does not go with a search along a line");
    }
    Ok(())
}

/// Checks that each of `spaces` is searched.
pub fn check_spaces(spaces: &[String], rules: &[AnyRule]) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for rule in rules {
        if !names.contains(&rule.spec().name) {
            names.push(rule.spec().name);
        }
    }
    let mut seen = HashSet::new();
    for text in spaces {
        let name = optim::by_name(&SpecText::of(text).name)?.spec().name;
        if !names.contains(&name) {
            bail!("--space {text}: no optimizer of the run is `{name}` (they are {})", names.join(", "));
        }
        if !seen.insert(name) {
            bail!("--space {text}: `{name}` has a space already");
        }
    }
    Ok(())
}

/// Fills in what every run has.
pub fn resolve(study: &Study, mut settings: Settings) -> Result<Settings> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    if let Some(first) = study.first.filter(|_| settings.asks_nothing()) {
        settings.opt = texts(first.optimizers);
        settings.tune = NonZeroUsize::new(first.tune);
        settings.seeds = NonZeroUsize::new(first.seeds);
    }
    if settings.dataset.is_empty() && settings.text.is_none() {
        settings.dataset = vec![study.dataset.to_owned()];
    }
    if settings.model.is_empty() {
        settings.norm = settings.norm.or(study.norm);
        settings.model = study.model.map(str::to_owned).into_iter().collect();
    }
    if settings.recipe.is_none() {
        if settings.opt.is_empty() {
            settings.opt = texts(study.optimizers);
            if settings.tunes() {
                // Nobody asked for these values.
                settings.opt = settings.opt.iter().map(|text| Space::free(text)).collect::<Result<_>>()?;
            }
        }
        if settings.schedule.is_empty() {
            settings.schedule = texts(study.schedules);
            if settings.steps.is_some() || settings.epochs.is_some() {
                settings.schedule.iter_mut().for_each(|text| text.truncate(text.find(':').unwrap_or(text.len())));
            }
        }
    }
    if settings.lr.is_empty() {
        settings.lr = study.peaks.to_vec();
    }
    if settings.epochs.is_none() && settings.steps.is_none() && settings.recipe.is_none() {
        settings.steps = study.steps.and_then(NonZeroU64::new);
    }
    settings.seeds = settings.seeds.or(NonZeroUsize::new(SEEDS));
    settings.device = settings.device.or(Some("cpu".to_owned()));
    settings.ops = settings.ops.or(Some(Operations::default()));
    settings.precision = settings.precision.or(Some(Precision::default()));
    settings.max_loss = settings.max_loss.or(Some(MAX_LOSS));
    Ok(settings)
}

/// The data sets that the settings name, in their order.
pub fn datasets(settings: &Settings) -> Result<Vec<Dataset>> {
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

#[cfg(test)]
mod tests;
