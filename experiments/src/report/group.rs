//! What a report speaks about: the groups of all its runs with their trials.

use crate::{
    config::group::GroupConfig,
    record::{
        metric::Metric,
        outcome::Outcome,
        run::Run,
        summary::GroupSummary,
        trial::{Phase, TrialRecord},
        workload::Workload,
    },
};
use anyhow::{Context, Result};
use optim::text::SpecText;

/// A group of one of the runs.
#[derive(Clone, Debug)]
pub struct ReportGroup<'a> {
    /// Its name; with the run's where there are several.
    pub name: String,
    /// The index of its run.
    pub run: usize,
    /// What the run calls its experiment.
    pub experiment: &'a str,
    /// The index of the group in its run.
    pub index: usize,
    /// What it is.
    pub config: &'a GroupConfig,
    /// What came of it: its statistics are measured anew, so that those of old records are what this program means by them.
    pub summary: GroupSummary,
    /// Its model in short: the family, with the keys in which models of the family differ here.
    pub model: String,
    /// What it was trained on.
    pub workload: Option<&'a Workload>,
    /// The trials that are compared.
    pub finals: Vec<Trial<'a>>,
    /// The trials that its hyperparameters were chosen by.
    pub tuning: Vec<Trial<'a>>,
    /// Whether trials of its run were, or may have been, at work at the same time, so that its times depend on others.
    pub had_neighbours: bool,
}

/// See [`ReportGroup::had_neighbours`]: as many trials run at a time as `--jobs` says, by default one per thread on the CPU.
fn had_neighbours(run: &Run) -> bool {
    let option = |key: &str| run.experiment.config.get(key)?.as_u64();
    let jobs = option("jobs").or_else(|| if run.experiment.device == "cpu" { option("threads") } else { Some(1) });
    jobs != Some(1) && run.trials.len() > 1
}

/// A trial with the index in its run.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The index of its run.
    pub run: usize,
    /// The index in its run.
    pub index: usize,
    /// Its config and outcome.
    pub record: &'a TrialRecord,
    /// Its measurements.
    pub metrics: &'a [Metric],
}

impl<'a> Trial<'a> {
    /// How it ended.
    pub fn outcome(self) -> Option<&'a Outcome> {
        self.record.outcome.as_ref()
    }

    /// The test loss at the end; none where it diverged.
    pub fn final_loss(self) -> Option<f64> {
        self.outcome().filter(|outcome| !outcome.diverged)?.final_loss
    }

    /// Whether it diverged.
    pub fn diverged(self) -> bool {
        self.outcome().is_some_and(|outcome| outcome.diverged)
    }

    /// Whether a search stopped it on the way.
    pub fn stopped(self) -> bool {
        self.outcome().is_some_and(|outcome| outcome.stopped)
    }

    /// The value of a hyperparameter of its optimizer.
    pub fn hyperparameter(self, key: &str) -> Option<String> {
        SpecText::of(&self.record.config.optimizer).get(key).map(str::to_owned)
    }

    /// The link to its part of the page.
    pub fn href(self) -> String {
        format!("#{}", self.anchor())
    }

    /// The id of its part of the page.
    pub fn anchor(self) -> String {
        format!("trial-{}-{}", self.run, self.index)
    }
}

impl<'a> ReportGroup<'a> {
    /// The groups of all `runs`, in their order.
    ///
    /// # Errors
    /// When the records of a run contradict each other.
    pub fn all(runs: &'a [Run]) -> Result<Vec<Self>> {
        let mut groups = Vec::new();
        for (run, records) in runs.iter().enumerate() {
            let Run { experiment, summary, trials, .. } = records;
            for (index, group) in summary.groups.iter().enumerate() {
                let group = group.clone().measure(&summary.trials);
                let config = experiment.groups.iter().find(|config| config.name == group.name);
                let config = config.with_context(|| {
                    let out = records.out.display();
                    format!("`{out}`: summary.json has the group `{}`, experiment.json has not", group.name)
                })?;
                let own = |phase: Phase| -> Vec<Trial> {
                    let trials = trials
                        .iter()
                        .enumerate()
                        .filter(|(_, (record, _))| record.group == group.name && record.config.phase == phase);
                    trials.map(|(index, (record, metrics))| Trial { run, index, record, metrics }).collect()
                };
                let name = if runs.len() > 1 {
                    format!("{}: {}", run_name(runs, run), group.name)
                } else {
                    group.name.clone()
                };
                groups.push(Self {
                    name,
                    run,
                    experiment: &experiment.experiment,
                    index,
                    config,
                    model: String::new(),
                    workload: experiment.workload(&group, config),
                    finals: own(Phase::Final),
                    tuning: own(Phase::Tune),
                    had_neighbours: had_neighbours(records),
                    summary: group,
                });
            }
        }
        let models: Vec<String> = groups.iter().map(|group| short_model(group, &groups)).collect();
        groups.iter_mut().zip(models).for_each(|(group, model)| group.model = model);
        Ok(groups)
    }

    /// The link to its part of the page.
    pub fn href(&self) -> String {
        format!("#{}", self.anchor())
    }

    /// The id of its part of the page.
    pub fn anchor(&self) -> String {
        format!("group-{}-{}", self.run, self.index)
    }

    /// Whether it is `other`.
    pub fn is(&self, other: &ReportGroup) -> bool {
        (self.run, self.index) == (other.run, other.index)
    }

    /// The hyperparameters that tuning picked at an edge of what it searched.
    pub fn at_edge(&self) -> &[String] {
        self.summary.searched.as_ref().map_or(&[], |searched| &searched.at_edge)
    }

    /// An aspect that it may be compared by, whether its run varies it or not.
    pub fn factor(&self, name: &str) -> Option<String> {
        self.config.factors.get(name).cloned().or_else(|| match name {
            "dataset" => Some(self.summary.dataset.clone()),
            "model" => Some(self.summary.model.clone()),
            "optimizer" => Some(self.summary.optimizer.clone()),
            "schedule" => Some(self.summary.schedule.clone()),
            "peak" => self.summary.hyperparameters.get("lr").map(ToString::to_string),
            key => SpecText::of(&self.summary.model).get(key).map(str::to_owned),
        })
    }

    /// The least test loss of any evaluation, and its trial.
    pub fn best_loss(&self) -> Option<(f64, Trial<'a>)> {
        let losses = self.finals.iter().filter_map(|trial| Some((trial.outcome()?.best_loss?, *trial)));
        losses.min_by(|(a, _), (b, _)| a.total_cmp(b))
    }

    /// The greatest test accuracy of any evaluation, and the first trial that has it.
    pub fn best_accuracy(&self) -> Option<(f64, Trial<'a>)> {
        let shares = self.finals.iter().filter_map(|trial| Some((trial.outcome()?.best_accuracy?, *trial)));
        shares.min_by(|(a, _), (b, _)| b.total_cmp(a))
    }

    /// The updates that each trial was meant to make.
    pub fn steps(&self) -> u64 {
        self.finals.iter().map(|trial| trial.record.config.steps).max().unwrap_or(0)
    }

    /// The test loss at the end by seed, of the seeds in `seeds`; none where the trial diverged or is missing.
    pub fn losses(&self, seeds: &[u64]) -> Vec<Option<f64>> {
        let of = |seed: &u64| self.finals.iter().find(|trial| trial.record.config.seed == *seed)?.final_loss();
        seeds.iter().map(of).collect()
    }

    /// The seeds of its trials.
    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.finals.iter().map(|trial| trial.record.config.seed).collect();
        seeds.sort_unstable();
        seeds
    }
}

/// A run's name: its folder's, with a number where two have the same.
pub fn run_name(runs: &[Run], run: usize) -> String {
    let name = |run: &Run| match run.out.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => run.out.display().to_string(),
    };
    let own = name(&runs[run]);
    let before = runs[..run].iter().filter(|other| name(other) == own).count();
    if before == 0 { own } else { format!("{own} ({})", before + 1) }
}

/// The family of the model of `group`, with the keys that are not the same in all models of the family among `groups`. Where the
/// place of the norms is compared, it is not of the model.
fn short_model(group: &ReportGroup, groups: &[ReportGroup]) -> String {
    let own = SpecText::of(&group.summary.model);
    let models = groups.iter().map(|other| SpecText::of(&other.summary.model));
    let peers: Vec<SpecText> = models.filter(|other| other.name == own.name).collect();
    let is_norm_compared = group.config.factors.contains_key("norm");
    let is_telling =
        |key: &&str| !(is_norm_compared && *key == "norm") && peers.iter().any(|other| other.get(key) != own.get(key));
    let mut short = SpecText::of(&own.name);
    for key in own.keys().filter(is_telling) {
        short.set(key, own.get(key).unwrap_or_default());
    }
    short.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    #[test]
    fn a_model_is_named_by_what_sets_it_apart() {
        let none = Estimate::of(&[]);
        let records = |model: &str, factors: &[&str]| {
            let config = GroupConfig {
                name: String::new(),
                dataset: String::new(),
                model: String::new(),
                optimizer: String::new(),
                schedule: String::new(),
                factors: factors.iter().map(|name| ((*name).to_owned(), String::new())).collect(),
            };
            let summary = GroupSummary {
                name: String::new(),
                dataset: String::new(),
                model: model.to_owned(),
                optimizer: String::new(),
                schedule: String::new(),
                hyperparameters: serde_json::Map::new(),
                searched: None,
                n: 0,
                median_loss: None,
                loss: none,
                accuracy: none,
                ema_loss: None,
                ema_accuracy: None,
                seconds: none,
                diverged: 0,
            };
            (config, summary)
        };
        let name = |groups: &[(&str, &[&str])]| -> Vec<String> {
            let records: Vec<_> = groups.iter().map(|(model, factors)| records(model, factors)).collect();
            let group = |(config, summary): &'static (GroupConfig, GroupSummary)| ReportGroup {
                name: String::new(),
                run: 0,
                experiment: "",
                index: 0,
                config,
                summary: summary.clone(),
                model: String::new(),
                workload: None,
                finals: Vec::new(),
                tuning: Vec::new(),
                had_neighbours: false,
            };
            let records: &'static [_] = records.leak();
            let groups: Vec<ReportGroup> = records.iter().map(group).collect();
            groups.iter().map(|group| short_model(group, &groups)).collect()
        };
        assert_eq!(name(&[("gpt:layers=4,norm=pre", &[])]), ["gpt"]);
        assert_eq!(
            name(&[("gpt:layers=4,norm=pre", &[]), ("gpt:layers=6,norm=pre", &[]), ("mlp", &[])]),
            ["gpt:layers=4", "gpt:layers=6", "mlp"]
        );
        let norms = [("gpt:layers=4,norm=pre", &["norm"][..]), ("gpt:layers=4,norm=post", &["norm"])];
        assert_eq!(name(&norms), ["gpt", "gpt"]);
        assert_eq!(name(&norms.map(|(model, _)| (model, &[][..]))), ["gpt:norm=pre", "gpt:norm=post"]);
    }
}
