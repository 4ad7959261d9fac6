//! From options to groups: each data set, model, optimizer and schedule that is compared, checked with the data.

use super::{
    optimizer,
    space::{Space, gives},
    workload::LoadedWorkload,
};
use crate::{
    config::{group::GroupConfig, options::Settings, study::Study},
    problem::data::{dataset::Dataset, loaded::Data},
};
use anyhow::{Context, Result, bail};
use optim::{AnyRule, Rule, Schedule, recipes};
use std::collections::{BTreeMap, HashMap, HashSet};

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
    let pairs: Vec<(Dataset, String)> = datasets
        .iter()
        .flat_map(|dataset| match settings.model.as_slice() {
            [] => vec![(*dataset, dataset.spec().default_model.to_owned())],
            models => models.iter().map(|model| (*dataset, model.clone())).collect(),
        })
        .collect();
    let (mut workloads, mut groups): (Vec<LoadedWorkload>, Vec<Group>) = (Vec::new(), Vec::new());
    for (dataset, model) in &pairs {
        let (data, hash) = (&data[&dataset.to_string()], &hashes[&dataset.to_string()]);
        let mut settings = settings.clone();
        let first = LoadedWorkload::new(*dataset, model, data, hash, &settings)?;
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
        for mut config in (study.groups)(&settings, &dataset.to_string(), model)? {
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
            let own = LoadedWorkload::new(*dataset, &config.model, data, hash, &settings)?;
            let known = workloads.iter().position(|known| known.record == own.record);
            let at = known.unwrap_or_else(|| {
                workloads.push(own);
                workloads.len() - 1
            });
            let rule = optimizer::parse(&config.optimizer)?;
            let steps = workloads[at].record.steps;
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
                let who = who.or(study.own.contains(&"--lr").then_some("--lr"));
                if let Some(who) = who {
                    bail!(
                        "schedule `{}` fixes the learning rate, which {who} is to choose: leave `lr` out",
                        config.schedule
                    );
                }
                if settings.recipe.is_none() && gives(&config.optimizer, "lr") {
                    tracing::warn!(
                        "schedule `{}` fixes the learning rate: that of `{}` is not used",
                        config.schedule,
                        config.optimizer
                    );
                }
            }
            groups.push(Group { config, workload: at, rule, space });
        }
    }
    let (mut names, mut texts) = (HashSet::new(), HashMap::new());
    for group in &groups {
        let rule = if settings.tunes() { group.space.spread(&group.rule, 0)? } else { group.rule.clone() };
        let schedule =
            optimizer::parse_schedule(&group.config.schedule, &rule, workloads[group.workload].record.steps)?;
        let name = &group.config.name;
        if let Some(other) = texts.insert(format!("{rule} {schedule} {}", group.workload), name) {
            let once = if settings.tunes() { " once tuned" } else { "" };
            bail!("`{other}` and `{name}` are the same{once}");
        }
        if !names.insert(name) {
            bail!("two groups are named `{name}`");
        }
    }
    Ok(Plan { workloads, groups })
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
