//! What can be compared: the groups that were trained on the same, in the same way.

use super::{group::ReportGroup, number};
use std::collections::BTreeSet;

/// What a group was trained on and how, apart from what is compared, by name.
type Conditions = Vec<(&'static str, String)>;

/// Everything that has to be the same where end losses are compared: the data, and all that is not an optimizer's or a schedule's.
/// What old records do not tell is absent.
fn conditions(group: &ReportGroup) -> Conditions {
    let mut conditions = Conditions::new();
    if let Some(workload) = group.workload {
        conditions.extend(workload.data_sha256.clone().map(|hash| ("data", hash)));
        conditions.push(("classes", workload.classes.to_string()));
        conditions.push(("loss of a constant prediction", workload.constant_loss.to_string()));
        conditions.push(("floor", workload.floor.map_or("none".to_owned(), |floor| floor.to_string())));
    }
    if let Some(trial) = group.finals.first() {
        let config = &trial.record.config;
        let word = |value: serde_json::Result<serde_json::Value>| {
            let value = value.expect("a config is plain data");
            value.as_str().map_or(value.to_string(), str::to_owned)
        };
        // What a run compares is no condition of it: only a group that does not compare it is another problem.
        let fixed = |factor: &str, value: String| {
            if group.config.factors.contains_key(factor) { "compared".to_owned() } else { value }
        };
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        conditions.extend(config.text_sha256.clone().map(|hash| ("text", hash)));
        conditions.extend([
            ("updates", fixed("batch_size", config.steps.to_string())),
            ("batch size", fixed("batch_size", config.batch_size.to_string())),
            ("updates between evaluations", fixed("batch_size", config.evaluate_every.to_string())),
            ("augmentation", config.augment.to_string()),
            ("clipping", fixed("clip", config.clip.map_or("none".to_owned(), number::setting))),
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
    pub groups: Vec<&'s ReportGroup<'a>>,
}

impl Problem<'_, '_> {
    /// Whether the times of any group may depend on what else was at work.
    pub fn had_neighbours(&self) -> bool {
        self.groups.iter().any(|group| group.had_neighbours)
    }
}

/// The problems of `groups` in the order of their first groups, and sentences that say why groups on the same data set and model
/// are not compared. Where the place of the norms is compared, models that differ in it are one problem.
pub fn problems<'s, 'a>(groups: &'s [ReportGroup<'a>]) -> (Vec<Problem<'s, 'a>>, Vec<String>) {
    let mut problems: Vec<(Problem, Conditions)> = Vec::new();
    for group in groups {
        let title = format!("{} on {}", group.model, group.summary.dataset);
        let conditions = conditions(group);
        let is_same =
            |(problem, other): &&mut (Problem, Conditions)| problem.title == title && agree(&conditions, other);
        match problems.iter_mut().find(is_same) {
            Some((problem, known)) => {
                problem.groups.push(group);
                let is_new = |(name, _): &(&str, String)| known.iter().all(|(other, _)| other != name);
                let new: Conditions = conditions.into_iter().filter(is_new).collect();
                known.extend(new);
            }
            None => problems.push((Problem { title, groups: vec![group] }, conditions)),
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
