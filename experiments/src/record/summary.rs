//! Statistics over the seeds of each group: `summary.json` and the table of results.

use super::outcome::{Outcome, is_false};
use crate::stats::{Estimate, median};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The experiment's name.
    pub experiment: String,
    /// The data set's name.
    pub dataset: String,
    /// The model's name.
    pub model: String,
    /// What was compared.
    pub groups: Vec<GroupSummary>,
    /// The final trials.
    pub trials: Vec<TrialSummary>,
    /// The trials that hyperparameters were chosen by; none without tuning.
    #[serde(default)]
    pub tuning: Vec<TrialSummary>,
    /// The most memory that the process which ended the run held at any time: its data, and all trials that ran at a time. None
    /// where the system does not tell it.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
}

/// A group: trials that differ in their seed alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Its name in tables and pictures.
    pub name: String,
    /// The data set's name.
    pub dataset: String,
    /// The model's name.
    pub model: String,
    /// The optimizer's name.
    pub optimizer: String,
    /// The learning rate's schedule.
    pub schedule: String,
    /// All hyperparameters of the optimizer.
    pub hyperparameters: serde_json::Map<String, serde_json::Value>,
    /// What tuning searched for it; none without tuning, and in records of before this was written.
    #[serde(default)]
    pub searched: Option<Searched>,
    /// Trials, those that diverged included.
    pub n: usize,
    /// The median of the final test loss over all trials, of which those that diverged have the worst; none where it falls on
    /// these.
    #[serde(default)]
    pub median_loss: Option<f64>,
    /// The final test loss of the trials that did not diverge.
    pub loss: Estimate,
    /// Their final test accuracy.
    pub accuracy: Estimate,
    /// Their final test loss with averaged weights; none where none were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_loss: Option<Estimate>,
    /// The same of the accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_accuracy: Option<Estimate>,
    /// Their training time.
    pub seconds: Estimate,
    /// Trials that diverged.
    pub diverged: usize,
}

/// What tuning searched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// The space, as in `--space` after the rule's name.
    pub space: String,
    /// The hyperparameters whose picked value is so near an end of its interval that a better one may lie outside.
    pub at_edge: Vec<String>,
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSummary {
    /// Its id, the name of its folder.
    pub id: String,
    /// Its group's name.
    pub group: String,
    /// Its seed.
    pub seed: u64,
    /// The test loss at the end; none when it diverged.
    pub final_loss: Option<f64>,
    /// The least test loss.
    pub best_loss: Option<f64>,
    /// The test accuracy at the end; none when it diverged.
    pub final_accuracy: Option<f64>,
    /// The greatest test accuracy.
    pub best_accuracy: Option<f64>,
    /// The test loss at the end with averaged weights; none when it diverged, or where none were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_loss: Option<f64>,
    /// The same of the accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_accuracy: Option<f64>,
    /// Updates made.
    pub steps: u64,
    /// Training time.
    pub seconds: f64,
    /// Whether a search stopped it on the way.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stopped: bool,
    /// Whether it diverged.
    pub diverged: bool,
}

impl TrialSummary {
    /// The record of a trial that ended.
    pub fn new(id: String, group: String, seed: u64, outcome: &Outcome) -> Self {
        Self {
            id,
            group,
            seed,
            final_loss: outcome.final_loss,
            best_loss: outcome.best_loss,
            final_accuracy: outcome.final_accuracy,
            best_accuracy: outcome.best_accuracy,
            ema_loss: outcome.ema_loss,
            ema_accuracy: outcome.ema_accuracy,
            steps: outcome.steps,
            seconds: outcome.seconds,
            stopped: outcome.stopped,
            diverged: outcome.diverged,
        }
    }
}

impl GroupSummary {
    /// Fills in the statistics from those of `trials` that belong to the group.
    pub fn measure(mut self, trials: &[TrialSummary]) -> Self {
        let own = || trials.iter().filter(|trial| trial.group == self.name);
        let ended = |value: fn(&TrialSummary) -> Option<f64>| -> Vec<f64> {
            own().filter(|trial| !trial.diverged).filter_map(value).collect()
        };
        let losses = own().map(|trial| trial.final_loss.filter(|_| !trial.diverged).unwrap_or(f64::INFINITY));
        self.median_loss = median(&losses.collect::<Vec<_>>()).filter(|loss| loss.is_finite());
        self.loss = Estimate::positive(&ended(|trial| trial.final_loss));
        self.accuracy = Estimate::share(&ended(|trial| trial.final_accuracy));
        let kept = |values: Vec<f64>, estimate: fn(&[f64]) -> Estimate| (!values.is_empty()).then(|| estimate(&values));
        self.ema_loss = kept(ended(|trial| trial.ema_loss), Estimate::positive);
        self.ema_accuracy = kept(ended(|trial| trial.ema_accuracy), Estimate::share);
        self.seconds = Estimate::positive(&ended(|trial| Some(trial.seconds)));
        self.diverged = own().filter(|trial| trial.diverged).count();
        self.n = own().count();
        self
    }

    /// Trials that did not diverge: what its means are of.
    pub fn ended(&self) -> usize {
        self.n - self.diverged
    }
}

impl Searched {
    /// What to know where a picked value is at an edge, in words: `lr is at the edge of what was searched (lr=1e-5..1e-2)`.
    pub fn warning(&self) -> Option<String> {
        let (keys, is) = match self.at_edge.as_slice() {
            [] => return None,
            [key] => (key.clone(), "is"),
            [keys @ .., last] => (format!("{} and {last}", keys.join(", ")), "are"),
        };
        Some(format!("{keys} {is} at the edge of what was searched ({})", self.space))
    }
}

impl Summary {
    /// The table of results, a row per group, and below it what tuning picked at an edge.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        let has_ema = self.groups.iter().any(|group| group.ema_loss.is_some());
        let header = ["", "ended", "median loss", "mean loss", "95 % CI", "mean accuracy", "95 % CI"];
        let of_ema: &[&str] = if has_ema { &["EMA loss", "EMA accuracy"] } else { &[] };
        table.set_header(header.iter().chain(of_ema).chain(&["mean seconds"]));
        for group in &self.groups {
            let median = group.median_loss.map(|loss| format!("{loss:.4}"));
            let on_diverged = if group.diverged > 0 { "diverged" } else { "-" };
            let mut row = vec![
                group.name.clone(),
                format!("{} of {}", group.ended(), group.n),
                median.unwrap_or(on_diverged.to_owned()),
                mean(&group.loss, 1.0, 4, ""),
                interval(&group.loss, 1.0, 4),
                mean(&group.accuracy, 100.0, 2, " %"),
                interval(&group.accuracy, 100.0, 2),
            ];
            if has_ema {
                let of = |estimate: &Option<Estimate>, scale, digits, unit| {
                    estimate.as_ref().map_or("-".to_owned(), |estimate| mean(estimate, scale, digits, unit))
                };
                row.extend([of(&group.ema_loss, 1.0, 4, ""), of(&group.ema_accuracy, 100.0, 2, " %")]);
            }
            row.push(mean(&group.seconds, 1.0, 1, ""));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let edge = |group: &GroupSummary| {
            let warning = group.searched.as_ref()?.warning()?;
            Some(format!("\n{}: {warning}, so a better value may lie outside; --space widens it", group.name))
        };
        std::iter::once(table.to_string()).chain(self.groups.iter().filter_map(edge)).collect()
    }
}

fn mean(estimate: &Estimate, scale: f64, digits: usize, unit: &str) -> String {
    estimate.mean.map_or("-".to_owned(), |mean| format!("{:.digits$}{unit}", mean * scale))
}

fn interval(estimate: &Estimate, scale: f64, digits: usize) -> String {
    let text = |[low, high]: [f64; 2]| format!("{:.digits$} .. {:.digits$}", low * scale, high * scale);
    estimate.ci95.map_or("-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_leave_out_what_diverged_but_count_it() {
        let trial = |group: &str, seed: u64, loss: Option<f64>| {
            let outcome = Outcome {
                final_loss: loss,
                final_accuracy: loss.map(|loss| 1.0 - loss),
                best_loss: Some(0.01),
                diverged: loss.is_none(),
                seconds: if loss.is_none() { 100.0 } else { 2.0 },
                ..Outcome::default()
            };
            TrialSummary::new(format!("{group}{seed}"), group.to_owned(), seed, &outcome)
        };
        let trials =
            [trial("a", 0, Some(0.1)), trial("b", 0, Some(9.0)), trial("a", 1, Some(0.3)), trial("a", 2, None)];
        let group = GroupSummary {
            name: "a".to_owned(),
            dataset: "digits".to_owned(),
            model: "mlp".to_owned(),
            optimizer: "sgd".to_owned(),
            schedule: "constant".to_owned(),
            hyperparameters: serde_json::Map::new(),
            searched: None,
            n: 0,
            median_loss: None,
            loss: Estimate::of(&[]),
            accuracy: Estimate::of(&[]),
            ema_loss: None,
            ema_accuracy: None,
            seconds: Estimate::of(&[]),
            diverged: 0,
        };
        let group = group.measure(&trials);
        assert_eq!((group.n, group.diverged, group.ended()), (3, 1, 2));
        assert_eq!(group.loss, Estimate::positive(&[0.1, 0.3]));
        assert_eq!(group.accuracy, Estimate::share(&[0.9, 0.7]));
        assert_eq!(group.seconds, Estimate::positive(&[2.0, 2.0]));
        assert_eq!(group.median_loss, Some(0.3), "of 0.1, 0.3 and infinity");
        let most_diverged = [trials[0].clone(), trials[3].clone(), trial("a", 3, None)];
        let group = group.measure(&most_diverged);
        assert_eq!((group.loss.mean, group.median_loss), (Some(0.1), None));

        let searched = |at_edge: &[&str]| Searched {
            space: "lr=1e-5..1e-2".to_owned(),
            at_edge: at_edge.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(searched(&[]).warning(), None);
        let group = GroupSummary { searched: Some(searched(&["lr"])), ..group };
        let summary = Summary {
            experiment: String::new(),
            dataset: String::new(),
            model: String::new(),
            groups: vec![group],
            trials: Vec::new(),
            tuning: Vec::new(),
            peak_memory_bytes: None,
        };
        let table = summary.table();
        for part in ["1 of 3", "diverged", "a: lr is at the edge of what was searched (lr=1e-5..1e-2), so"] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
