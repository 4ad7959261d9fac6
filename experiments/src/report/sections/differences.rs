//! What differs between runs: in their options, programs, machines and data.

use crate::{
    record::run::Run,
    report::{
        group::run_name,
        table::{Cell, Table},
    },
};
use serde_json::Value;

/// What stands where a run has no such thing.
const ABSENT: &str = "-";
/// Options that say where and how a run is written, and nothing of what it does.
const WHERE: [&str; 2] = ["out", "resume"];
/// So much of a hash tells it from others.
const OF_A_HASH: usize = 12;

/// A row for each thing that is not the same in all `runs`; none where nothing differs.
pub fn table(runs: &[Run]) -> Table {
    let (facts, options): (Vec<Facts>, Vec<usize>) = runs.iter().map(facts).unzip();
    let mut names: Vec<&String> = Vec::new();
    // Options of any run stand before what is no option.
    for is_option in [true, false] {
        for (name, _) in
            facts.iter().zip(&options).flat_map(|(facts, n)| if is_option { &facts[..*n] } else { &facts[*n..] })
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let value = |facts: &Facts, name: &String| {
        facts.iter().find(|(other, _)| other == name).map_or(ABSENT.to_owned(), |(_, value)| value.clone())
    };
    let row = |name: &&String| {
        let values: Vec<String> = facts.iter().map(|facts| value(facts, name)).collect();
        let differs = values.iter().any(|value| *value != values[0]);
        differs.then(|| std::iter::once(Cell::new(name.as_str())).chain(values.into_iter().map(Cell::new)).collect())
    };
    let rows = names.iter().filter_map(row).collect();
    let head: Vec<String> =
        std::iter::once(String::new()).chain((0..runs.len()).map(|run| run_name(runs, run))).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let caption = "Options, versions, commits, devices and data that are not the same in all runs, and only these; - stands where a run has no \
        such thing, as where an option was not given.";
    Table::new("What differs between the runs".to_owned(), &head, rows, caption.to_owned())
}

/// What is told where nothing differs.
pub const NOTHING: &str = "Nothing differs between the runs in options, versions, commits, devices and data.";

/// Names with their values.
type Facts = Vec<(String, String)>;

/// What a run is, by name, and how many of these are options, which come first.
fn facts(run: &Run) -> (Facts, usize) {
    let experiment = &run.experiment;
    let mut facts = vec![("experiment".to_owned(), experiment.experiment.clone())];
    flatten("", &experiment.config, &mut facts);
    facts.retain(|(name, _)| !WHERE.contains(&name.as_str()));
    let options = facts.len();
    let versions = &experiment.versions;
    let short = |hash: &str| hash.chars().take(OF_A_HASH).collect::<String>();
    let mut put = |name: &str, value: Option<&str>| {
        facts.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    };
    put("runs on", Some(&experiment.device));
    put("version of experiments", Some(&versions.experiments));
    put("version of candle", Some(&versions.candle));
    let commit = experiment.commit.as_deref().map(|commit| match commit.split_once('-') {
        Some((hash, dirty)) => format!("{}-{dirty}", short(hash)),
        None => short(commit),
    });
    put("commit", commit.as_deref());
    put("system", Some(&format!("{} on {}", versions.os, versions.arch)));
    put("processor", versions.processor.as_deref());
    for workload in &experiment.workloads {
        put(&format!("data of {}", workload.dataset), workload.data_sha256.as_deref().map(short).as_deref());
    }
    let text = run.trials.iter().find_map(|(record, _)| record.config.text_sha256.as_deref());
    put("text", text.map(short).as_deref());
    (facts, options)
}

/// The options in `value` by name, those within another with the names of both; what is null was not set.
fn flatten(name: &str, value: &Value, facts: &mut Facts) {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, facts);
            }
        }
        Value::Array(items) => {
            facts.push((name.to_owned(), items.iter().map(word).collect::<Vec<_>>().join(", ")));
        }
        value => facts.push((name.to_owned(), word(value))),
    }
}
