//! When, where and by what a run was made, and how to make it again.

use crate::{
    config::names,
    record::{run::Run, workload::Workload},
};
use anyhow::Result;
use maud::{Markup, html};

/// The facts of `run`.
///
/// # Errors
/// When its options cannot be written as TOML.
pub fn facts(run: &Run) -> Result<Markup> {
    let experiment = &run.experiment;
    let versions = &experiment.versions;
    let seeds: Vec<String> = experiment.seeds.iter().map(u64::to_string).collect();
    let processor = versions.processor.as_ref().map(|processor| format!(", {processor}"));
    let config = config(&experiment.config)?;
    let commit = experiment.commit.as_deref();
    let differing = experiment.workloads.iter().filter(|workload| !workload.data_differs.is_empty());
    let mut other_data: Vec<String> = differing
        .map(|Workload { dataset, data_differs, .. }| {
            format!("not what was published: {} of {dataset}", data_differs.join(", "))
        })
        .collect();
    other_data.dedup();
    Ok(html! {
        dl.facts {
            dt { "began" } dd { (to_seconds(&experiment.started)) }
            dt { "command" } dd { code { (command_line(&experiment.command_line)) } }
            dt { "commit" } dd {
                @match commit {
                    Some(commit) => { code { (commit) } @if commit.ends_with("-dirty") { " (with changes that were not committed)" } }
                    None => { "none: the program was built outside a repository" }
                }
            }
            @for continuation in &experiment.continued {
                dt { "went on" }
                dd {
                    (continuation.started) " by " code { (command_line(&continuation.command_line)) }
                    @if let Some(commit) = &continuation.commit { ", commit " code { (commit) } }
                    ", candle " (continuation.versions.candle)
                    @if let Some(processor) = &continuation.versions.processor { ", " (processor) }
                }
            }
            dt { "seeds" } dd { (seeds.join(", ")) }
            dt { "device" } dd { (experiment.device) }
            dt { "system" } dd { (versions.os) " on " (versions.arch) @if let Some(processor) = processor { (processor) } }
            dt { "memory" } dd {
                @match run.summary.peak_memory_bytes {
                    Some(bytes) => {
                        (format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
                        " at most, of the whole process: its data, and all trials that ran at a time"
                    }
                    None => { "unknown" }
                }
            }
            @if !other_data.is_empty() { dt { "other data" } dd { (other_data.join("; ")) } }
            dt { "versions" } dd { "experiments " (versions.experiments) ", candle " (versions.candle) }
        }
        p {
            "To make it again: "
            @if let Some(commit) = commit { code { "git checkout " (commit.trim_end_matches("-dirty")) } ", then " }
            "the command above in a new folder. On the same kind of processor a CPU gives the same bits, times excepted, for any number of threads."
        }
        details {
            summary { code { "config.toml" } ": all options" }
            div { pre { (config) } }
        }
    })
}

/// A time such as `2026-01-02T03:04:05.123456789+00:00[UTC]` without the fractions of its second.
fn to_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((start, rest)) => start.to_owned() + rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => time.to_owned(),
    }
}

/// The options as they are in `config.toml`. What is null was not set, for which TOML has no word.
fn config(options: &serde_json::Value) -> Result<String> {
    fn without_null(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(fields) => {
                let set = fields.iter().filter(|(_, value)| !value.is_null());
                set.map(|(key, value)| (key.clone(), without_null(value))).collect()
            }
            serde_json::Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(without_null).collect(),
            value => value.clone(),
        }
    }
    match without_null(options) {
        options @ serde_json::Value::Object(_) => Ok(toml::to_string_pretty(&options)?),
        other => Ok(serde_json::to_string_pretty(&other)?),
    }
}

/// The words of a command as a shell reads them; no line breaks within one.
fn command_line(words: &[String]) -> Markup {
    html! {
        @for (i, word) in words.iter().enumerate() {
            @if i > 0 { " " }
            span { (names::for_shell(word.as_ref())) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let words = ["shootout", "--opt", "sgd:lr=0.1", "--out", "my run", "it's", ""].map(str::to_owned);
        let line = command_line(&words).into_string().replace("<span>", "").replace("</span>", "");
        assert_eq!(line, r"shootout --opt sgd:lr=0.1 --out 'my run' 'it'\''s' ''");
    }

    #[test]
    fn a_time_is_told_to_the_second() {
        for time in ["2026-01-02T03:04:05+00:00[UTC]", "2026-01-02T03:04:05.186824949+00:00[UTC]"] {
            assert_eq!(to_seconds(time), "2026-01-02T03:04:05+00:00[UTC]");
        }
    }

    #[test]
    fn options_become_toml_without_what_is_not_set() {
        let options =
            serde_json::json!({"seeds": 3, "out": null, "opt": ["sgd", "adam"], "tune": {"trials": 8, "grid": null}});
        let parsed: toml::Value = toml::from_str(&config(&options).unwrap()).unwrap();
        assert_eq!(parsed["seeds"].as_integer(), Some(3));
        assert_eq!(parsed["tune"]["trials"].as_integer(), Some(8));
        assert!(parsed.get("out").is_none() && parsed["tune"].get("grid").is_none());
        assert_eq!(config(&serde_json::Value::Null).unwrap(), "null");
    }
}
