//! What a report speaks about: the groups of all its runs with their trials, and how they fall into problems and facets.

use super::number;
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
    report::plot::STYLES,
};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// Names and values of what sets a group apart.
type Aspects = Vec<(String, String)>;

/// A group of one of the runs.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
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

/// See [`Subject::had_neighbours`]: as many trials run at a time as `--jobs` says, by default one per thread on the CPU.
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

    /// The link to its part of the page.
    pub fn href(self) -> String {
        format!("#{}", self.anchor())
    }

    /// The id of its part of the page.
    pub fn anchor(self) -> String {
        format!("trial-{}-{}", self.run, self.index)
    }
}

impl<'a> Subject<'a> {
    /// The groups of all `runs`, in their order.
    ///
    /// # Errors
    /// When the records of a run contradict each other.
    pub fn all(runs: &'a [Run]) -> Result<Vec<Self>> {
        let mut subjects = Vec::new();
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
                // A group may have left the model to the data set; its summary knows it.
                let is_own = |workload: &&Workload| {
                    workload.dataset == group.dataset && [&group.model, &config.model].contains(&&workload.model)
                };
                let name = if runs.len() > 1 {
                    format!("{}: {}", run_name(runs, run), group.name)
                } else {
                    group.name.clone()
                };
                subjects.push(Self {
                    name,
                    run,
                    experiment: &experiment.experiment,
                    index,
                    config,
                    model: String::new(),
                    workload: experiment.workloads.iter().find(is_own),
                    finals: own(Phase::Final),
                    tuning: own(Phase::Tune),
                    had_neighbours: had_neighbours(records),
                    summary: group,
                });
            }
        }
        let models: Vec<String> = subjects.iter().map(|subject| short_model(subject, &subjects)).collect();
        subjects.iter_mut().zip(models).for_each(|(subject, model)| subject.model = model);
        Ok(subjects)
    }

    /// The link to its part of the page.
    pub fn href(&self) -> String {
        format!("#{}", self.anchor())
    }

    /// The id of its part of the page.
    pub fn anchor(&self) -> String {
        format!("group-{}-{}", self.run, self.index)
    }

    /// An aspect that it may be compared by, whether its run varies it or not.
    pub fn factor(&self, name: &str) -> Option<String> {
        let model_key = |key: &str| option(&self.summary.model, key).map(str::to_owned);
        self.config.factors.get(name).cloned().or_else(|| match name {
            "dataset" => Some(self.summary.dataset.clone()),
            "model" => Some(self.summary.model.clone()),
            "optimizer" => Some(self.summary.optimizer.clone()),
            "schedule" => Some(self.summary.schedule.clone()),
            "peak" => self.summary.hyperparameters.get("lr").map(ToString::to_string),
            _ => model_key(name),
        })
    }

    /// The model without its keys.
    pub fn family(&self) -> &str {
        self.summary.model.split(':').next().unwrap_or_default()
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

/// The value of a key in text such as `adamw:lr=1e-3,eps=1e-8`.
pub fn option<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let (_, options) = text.split_once(':')?;
    options
        .split(',')
        .find_map(|option| option.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}

/// The family of the model of `subject`, with the keys that are not the same in all models of the family among `subjects`. Where the
/// place of the norms is compared, it is not of the model.
fn short_model(subject: &Subject, subjects: &[Subject]) -> String {
    let family = subject.family();
    let peers = || subjects.iter().filter(|other| other.family() == family).map(|other| other.summary.model.as_str());
    let is_norm_compared = subject.config.factors.contains_key("norm");
    let options = subject.summary.model.split_once(':').map_or("", |(_, options)| options).split(',');
    let telling = options.filter(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        let own = option(&subject.summary.model, key);
        !(is_norm_compared && key == "norm") && peers().any(|model| option(model, key) != own)
    });
    match telling.collect::<Vec<_>>().join(",") {
        none if none.is_empty() => family.to_owned(),
        keys => format!("{family}:{keys}"),
    }
}

/// What a subject was trained on and how, apart from what is compared, by name.
type Conditions = Vec<(&'static str, String)>;

/// Everything that has to be the same where end losses are compared: the data, and all that is not an optimizer's or a schedule's.
/// What old records do not tell is absent.
fn conditions(subject: &Subject) -> Conditions {
    let mut conditions = Conditions::new();
    if let Some(workload) = subject.workload {
        conditions.extend(workload.data_sha256.clone().map(|hash| ("data", hash)));
        conditions.push(("classes", workload.classes.to_string()));
        conditions.push(("loss of a constant prediction", workload.constant_loss.to_string()));
        conditions.push(("floor", workload.floor.map_or("none".to_owned(), |floor| floor.to_string())));
    }
    if let Some(trial) = subject.finals.first() {
        let config = &trial.record.config;
        let word = |value: serde_json::Result<serde_json::Value>| {
            let value = value.expect("a config is plain data");
            value.as_str().map_or(value.to_string(), str::to_owned)
        };
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        conditions.extend(config.text_sha256.clone().map(|hash| ("text", hash)));
        conditions.extend([
            ("updates", config.steps.to_string()),
            ("batch size", config.batch_size.to_string()),
            ("updates between evaluations", config.evaluate_every.to_string()),
            ("augmentation", yes(config.augment)),
            ("clipping", config.clip.map_or("none".to_owned(), number::setting)),
            ("decay of matrices only", yes(config.decay_matrices_only)),
            ("loss that counts as divergence", number::setting(config.max_loss)),
            ("precision", word(serde_json::to_value(config.precision))),
            ("operations", word(serde_json::to_value(config.ops))),
            ("device", config.device.clone()),
        ]);
    }
    conditions
}

/// Whether nothing is known to differ.
fn agree(a: &Conditions, b: &Conditions) -> bool {
    let agrees = |(name, value): &(&str, String)| {
        let other = b.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        other.is_none_or(|other| other == value)
    };
    a.iter().all(agrees)
}

/// Groups whose end losses can be compared: those of one problem.
#[derive(Clone, Debug)]
pub struct Problem<'s, 'a> {
    /// The data set and the model; with what sets it apart, where other problems have the same.
    pub title: String,
    /// Its groups.
    pub subjects: Vec<&'s Subject<'a>>,
}

impl Problem<'_, '_> {
    /// Whether the times of any group may depend on what else was at work.
    pub fn had_neighbours(&self) -> bool {
        self.subjects.iter().any(|subject| subject.had_neighbours)
    }
}

/// The problems of `subjects` in the order of their first groups, and sentences that say why groups on the same data set and model
/// are not compared. Where the place of the norms is compared, models that differ in it are one problem.
pub fn problems<'s, 'a>(subjects: &'s [Subject<'a>]) -> (Vec<Problem<'s, 'a>>, Vec<String>) {
    let mut problems: Vec<(Problem, Conditions)> = Vec::new();
    for subject in subjects {
        let title = format!("{} on {}", subject.model, subject.summary.dataset);
        let conditions = conditions(subject);
        let is_same =
            |(problem, other): &&mut (Problem, Conditions)| problem.title == title && agree(&conditions, other);
        match problems.iter_mut().find(is_same) {
            Some((problem, known)) => {
                problem.subjects.push(subject);
                let is_new = |(name, _): &(&str, String)| known.iter().all(|(other, _)| other != name);
                let new: Conditions = conditions.into_iter().filter(is_new).collect();
                known.extend(new);
            }
            None => problems.push((Problem { title, subjects: vec![subject] }, conditions)),
        }
    }
    let mut notes = Vec::new();
    let titles: BTreeSet<String> = problems.iter().map(|(problem, _)| problem.title.clone()).collect();
    for title in titles {
        let same: Vec<usize> = (0..problems.len()).filter(|i| problems[*i].0.title == title).collect();
        if same.len() < 2 {
            continue;
        }
        let value =
            |i: usize, name: &str| problems[i].1.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
        let is_differing = |name: &&str| {
            let mut known = same.iter().filter_map(|i| value(*i, name));
            let first = known.next();
            known.any(|other| Some(other) != first)
        };
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in same.iter().flat_map(|i| &problems[*i].1) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let differing: Vec<&str> = names.into_iter().filter(is_differing).collect();
        let shown = |i: usize, name: &str| match (name, value(i, name)) {
            (_, None) => "unknown".to_owned(),
            ("data" | "text", Some(hash)) => hash.chars().take(8).collect(),
            (_, Some(value)) => value.clone(),
        };
        let listed: Vec<String> = differing
            .iter()
            .map(|name| {
                let values: Vec<String> = same.iter().map(|i| shown(*i, name)).collect();
                format!("{name} ({})", values.join(", "))
            })
            .collect();
        let titles: Vec<String> = same
            .iter()
            .map(|i| {
                let telling: Vec<String> = differing.iter().map(|name| format!("{name} {}", shown(*i, name))).collect();
                format!("{title} ({})", telling.join(", "))
            })
            .collect();
        for (i, title) in same.iter().zip(titles) {
            problems[*i].0.title = title;
        }
        notes.push(format!(
            "{title} is {} problems here, set side by side and not compared, since they differ in: {}.",
            same.len(),
            listed.join("; ")
        ));
    }
    (problems.into_iter().map(|(problem, _)| problem).collect(), notes)
}

/// Groups that are drawn into the same panels.
#[derive(Clone, Debug)]
pub struct Facet<'s, 'a> {
    /// What sets it apart from the other facets; empty where there is one.
    pub title: String,
    /// The groups, at most as many as there are styles.
    pub curves: Vec<Labelled<'s, 'a>>,
}

/// A group in a facet.
#[derive(Clone, Debug)]
pub struct Labelled<'s, 'a> {
    /// What sets it apart from the other groups in the facet.
    pub label: String,
    /// The index of its style.
    pub style: usize,
    /// The group.
    pub subject: &'s Subject<'a>,
}

/// The aspects that groups in one panel differ in.
fn curve_factors(experiment: &str) -> &'static [&'static str] {
    match experiment {
        "schedules" => &["schedule"],
        "warmup" => &["warmup"],
        _ => &[],
    }
}

/// Sorts `subjects` into facets: in `schedules` groups of a facet differ in their schedule, in `warmup` in whether they warm up, and
/// elsewhere in anything but data set and model.
pub fn facets<'s, 'a>(subjects: &[&'s Subject<'a>]) -> Vec<Facet<'s, 'a>> {
    let aspects = |subject: &Subject| -> Vec<(String, String)> {
        let mut aspects = vec![("dataset".to_owned(), subject.summary.dataset.clone())];
        aspects.push(("model".to_owned(), subject.model.clone()));
        aspects.extend(
            subject.config.factors.clone().into_iter().filter(|(name, _)| name != "dataset" && name != "model"),
        );
        aspects
    };
    let is_of_curve = |subject: &Subject, name: &str| match curve_factors(subject.experiment) {
        [] => name != "dataset" && name != "model",
        factors => factors.contains(&name),
    };
    let key = |subject: &Subject| -> Aspects {
        aspects(subject).into_iter().filter(|(name, _)| !is_of_curve(subject, name)).collect()
    };
    let mut sorted: Vec<(Aspects, Vec<&'s Subject<'a>>)> = Vec::new();
    for &subject in subjects {
        let key = key(subject);
        match sorted.iter_mut().find(|(other, _)| *other == key) {
            Some((_, members)) => members.push(subject),
            None => sorted.push((key, vec![subject])),
        }
    }
    let mut labels: Vec<String> = Vec::new();
    let mut facets = Vec::new();
    for (key, members) in &sorted {
        // Only what not all facets have in common tells them apart.
        let telling = key.iter().filter(|aspect| sorted.iter().any(|(other, _)| !other.contains(aspect)));
        let title = telling.map(|(name, value)| aspect(name, value)).collect::<Vec<_>>().join(", ");
        let short: Vec<String> = members
            .iter()
            .map(|subject| {
                let own = aspects(subject).into_iter().filter(|(name, _)| is_of_curve(subject, name));
                own.map(|(name, value)| aspect(&name, &value)).collect::<Vec<_>>().join(", ")
            })
            .collect();
        let is_unique = |label: &String| !label.is_empty() && short.iter().filter(|other| *other == label).count() == 1;
        let of_one_run = members.iter().all(|subject| subject.name == subject.config.name);
        let parts = members.len().div_ceil(STYLES);
        for (part, members) in members.iter().zip(short.iter()).collect::<Vec<_>>().chunks(STYLES).enumerate() {
            let mut curves: Vec<Labelled> = Vec::new();
            for &(&subject, short) in members {
                let label = if of_one_run && is_unique(short) { short.clone() } else { subject.name.clone() };
                // The same label has the same style in all facets, as far as styles go.
                let place = labels.iter().position(|other| *other == label).unwrap_or_else(|| {
                    labels.push(label.clone());
                    labels.len() - 1
                });
                let taken = |style: usize| curves.iter().any(|curve| curve.style == style);
                let style = (place..place + STYLES).map(|style| style % STYLES).find(|style| !taken(*style));
                curves.push(Labelled { label, style: style.unwrap_or(place), subject });
            }
            let title = match (parts, title.is_empty()) {
                (1, _) => title.clone(),
                (_, true) => format!("part {} of {parts}", part + 1),
                (_, false) => format!("{title}, part {} of {parts}", part + 1),
            };
            facets.push(Facet { title, curves });
        }
    }
    facets
}

/// An aspect and its value in a few words.
pub fn aspect(name: &str, value: &str) -> String {
    match (name, value) {
        ("warmup", "yes") => "with warmup".to_owned(),
        ("warmup", "no") => "without warmup".to_owned(),
        ("norm", value) => format!("{value}-norm"),
        ("optimizer" | "schedule" | "model" | "dataset", value) => value.to_owned(),
        (name, value) => format!("{name} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    #[test]
    fn a_model_is_named_by_what_sets_it_apart() {
        let none = Estimate::of(&[]);
        let group = |model: &str, factors: &[&str]| {
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
                seconds: none,
                diverged: 0,
            };
            (config, summary)
        };
        let name = |groups: &[(&str, &[&str])]| -> Vec<String> {
            let groups: Vec<_> = groups.iter().map(|(model, factors)| group(model, factors)).collect();
            let subject = |(config, summary): &'static (GroupConfig, GroupSummary)| Subject {
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
            let groups: &'static [_] = groups.leak();
            let subjects: Vec<Subject> = groups.iter().map(subject).collect();
            subjects.iter().map(|subject| short_model(subject, &subjects)).collect()
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
