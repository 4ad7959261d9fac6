//! From options to groups: each data set, model, batch size, optimizer and schedule that is compared, checked with the data.

use super::{
    optimizer,
    resolve::MOST_TRIALS,
    space::{Space, gives},
    workload::LoadedWorkload,
};
use crate::{
    config::{
        choice::Choice,
        group::GroupConfig,
        names::number,
        options::Settings,
        study::{Compared, Study},
    },
    problem::data::{dataset::Dataset, loaded::Data},
};
use anyhow::{Context, Result, bail};
use optim::{AnyRule, Rule, Schedule, recipes};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a run compares.
pub struct Plan {
    /// What it is compared on.
    pub workloads: Vec<LoadedWorkload>,
    /// What is compared.
    pub groups: Vec<Group>,
}

/// A group, with what its trials are made of.
pub struct Group {
    /// As it is written.
    pub config: GroupConfig,
    /// The index of its workload.
    pub workload: usize,
    /// Its optimizer as it was given.
    pub rule: AnyRule,
    /// The largest global gradient norm; none for no clipping.
    pub clip: Option<f64>,
    /// What is searched for it, with `--tune`: at first, since it may grow.
    pub space: Space,
}

/// The plan of `study` with these settings, for data sets whose data are loaded, and have these hashes.
///
/// # Errors
/// When a group's model, optimizer, schedule or space is wrong, or two groups are the same.
pub fn plan(
    study: &Study,
    settings: &Settings,
    datasets: &[Dataset],
    data: &BTreeMap<String, Data>,
    hashes: &BTreeMap<String, String>,
) -> Result<Plan> {
    if settings.data_dir.is_some() && !datasets.iter().any(|dataset| dataset.has_files()) {
        tracing::warn!("--data-dir is not read: no data set of the run has files in a folder");
    }
    let mut planning = Planning { study, told: settings, workloads: vec![], groups: vec![], warned: BTreeSet::new() };
    for dataset in datasets {
        let models = match settings.model.as_slice() {
            [] => vec![dataset.spec().default_model.to_owned()],
            models => models.to_vec(),
        };
        let name = dataset.to_string();
        let source = Source { dataset: *dataset, data: &data[&name], hash: &hashes[&name] };
        for model in Choice::of(&models, MOST_TRIALS)? {
            for batch_size in each(&settings.batch_size) {
                let settings = Settings { batch_size: batch_size.into_iter().collect(), ..settings.clone() };
                planning.add(&source, datasets.len() > 1, &model, settings)?;
            }
        }
    }
    planning.check_distinct()?;
    Ok(Plan { workloads: planning.workloads, groups: planning.groups })
}

/// Each of `values`; none where there is none.
fn each<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

/// A data set with its data.
struct Source<'a> {
    dataset: Dataset,
    data: &'a Data,
    hash: &'a str,
}

/// A plan that is being made.
struct Planning<'a> {
    study: &'a Study,
    /// With all values of all lists.
    told: &'a Settings,
    workloads: Vec<LoadedWorkload>,
    groups: Vec<Group>,
    /// What was warned of, so that it is said once and not for each group.
    warned: BTreeSet<String>,
}

impl Planning<'_> {
    /// Adds the groups of a data set (of several or not) and a model, for `settings`, which have one batch size.
    fn add(
        &mut self,
        source: &Source<'_>,
        is_one_of_several: bool,
        model: &Choice,
        mut settings: Settings,
    ) -> Result<()> {
        let Source { dataset, data, hash } = *source;
        let load = |model: &str, settings: &Settings| LoadedWorkload::new(dataset, model, data, hash, settings);
        let first = load(&model.text, &settings)?;
        if let Some(name) = &settings.recipe {
            let recipe = recipes::by_name(name, first.record.steps_per_epoch)?;
            let steps = first.record.steps;
            if recipe.steps != steps && !settings.scale_recipe {
                self.warn(format!(
                    "recipe {name} is meant for {} updates, and the run has {steps}: --scale-recipe fits it to that",
                    recipe.steps
                ));
            }
            let recipe = if settings.scale_recipe { recipe.scaled(steps)? } else { recipe };
            settings.opt = vec![recipe.rule.boxed().to_string()];
            settings.schedule = vec![recipe.schedule.to_string()];
        }
        let optimizers = Choice::of(&settings.opt, MOST_TRIALS)?;
        let schedules = Choice::of(&settings.schedule, MOST_TRIALS)?;
        let batch_size = first.record.batch_size;
        // A group's model may be another than `model`, as in where it normalises. To build one takes time.
        let (mut first, mut loaded) = (Some(first), HashMap::<String, usize>::new());
        for clip in each(&self.told.clip) {
            let name = dataset.to_string();
            let compared = Compared {
                settings: &settings,
                dataset: &name,
                model: &model.text,
                optimizers: &optimizers,
                schedules: &schedules,
            };
            for mut config in (self.study.groups)(&compared)? {
                if is_one_of_several {
                    config.vary("dataset", &name, &name)?;
                }
                config.choose((self.told.model.len() > 1).then_some("model"), model)?;
                if self.told.batch_size.len() > 1 {
                    config.vary("batch_size", batch_size.to_string(), &format!("batch size {batch_size}"))?;
                }
                if let (Some(clip), true) = (clip, self.told.clip.len() > 1) {
                    let clip = number(clip);
                    config.vary("clip", &clip, &format!("clip {clip}"))?;
                }
                let workload = match loaded.get(&config.model) {
                    Some(workload) => *workload,
                    None => {
                        let first = first.take().filter(|_| config.model == model.text);
                        let own = first.map_or_else(|| load(&config.model, &settings), Ok)?;
                        *loaded.entry(config.model.clone()).or_insert(self.workload(own))
                    }
                };
                let group = self.group(config, workload, data, clip.filter(|clip| *clip > 0.0))?;
                self.groups.push(group);
            }
        }
        Ok(())
    }
    /// The index of a workload, which is added where it is new.
    fn workload(&mut self, own: LoadedWorkload) -> usize {
        let known = self.workloads.iter().position(|known| known.record == own.record);
        known.unwrap_or_else(|| {
            self.workloads.push(own);
            self.workloads.len() - 1
        })
    }

    /// The group that `config` says, checked.
    fn group(&mut self, config: GroupConfig, workload: usize, data: &Data, clip: Option<f64>) -> Result<Group> {
        let settings = self.told;
        let rule = optimizer::parse(&config.optimizer)?;
        let steps = self.workloads[workload].record.steps;
        optimizer::parse_schedule(&config.schedule, &rule, steps)?;
        if settings.tunes() {
            let steps = data.steps_for_tuning(steps);
            optimizer::parse_schedule(&config.schedule, &rule, steps)
                .with_context(|| format!("--tune: a tuning trial makes {steps} updates"))?;
        }
        let space = Space::choose(&config.optimizer, &rule, &settings.space)?;
        if settings.tunes() && !space.is_searchable() {
            bail!(
                "`{}` leaves --tune nothing to search: what has one value in --opt or --space keeps it",
                config.optimizer
            );
        }
        if schedule_fixes_lr(&config.schedule, &rule, steps)? {
            let who = if settings.tunes() { Some("--tune") } else { None };
            let who = who.or(self.study.own.contains(&"--lr").then_some("--lr"));
            if let Some(who) = who {
                bail!(
                    "schedule `{}` fixes the learning rate, which {who} is to choose: leave `lr` out",
                    config.schedule
                );
            }
            if settings.recipe.is_none() && gives(&config.optimizer, "lr") {
                self.warn(format!(
                    "schedule `{}` fixes the learning rate: that of `{}` is not used",
                    config.schedule, config.optimizer
                ));
            }
        }
        Ok(Group { config, workload, rule, clip, space })
    }

    fn warn(&mut self, text: String) {
        if !self.warned.contains(&text) {
            tracing::warn!("{text}");
            self.warned.insert(text);
        }
    }

    /// Checks that no two groups train in the same way, or have the same name.
    fn check_distinct(&self) -> Result<()> {
        let (mut names, mut texts) = (HashSet::new(), HashMap::new());
        let is_tuned = self.told.tunes();
        for Group { config, workload, rule, clip, space } in &self.groups {
            let rule = if is_tuned { space.spread(rule, 0)? } else { rule.clone() };
            let steps = self.workloads[*workload].record.steps;
            let schedule = optimizer::parse_schedule(&config.schedule, &rule, steps)?;
            let name = &config.name;
            if let Some(other) = texts.insert(format!("{rule} {schedule} {workload} {clip:?}"), name) {
                let once = if is_tuned { " once tuned" } else { "" };
                bail!("`{other}` and `{name}` are the same{once}");
            }
            if !names.insert(name) {
                bail!("two groups are named `{name}`");
            }
        }
        Ok(())
    }
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
