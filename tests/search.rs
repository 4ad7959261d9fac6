//! Tuning, as it is told: successive halving keeps to its budget and to its bits, and finds what a search by whole trials finds.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const RULES: [&str; 6] = ["sgd:momentum=0.9", "adam", "adamw", "lion", "lamb", "muon"];

fn shootout(folder: &Path, out: &str, args: &[&str]) -> (PathBuf, Output) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shootout"));
    for rule in RULES {
        command.args(["--opt", rule]);
    }
    let output = command.args(args).args(["--out", out]).current_dir(folder).output().unwrap();
    (folder.join(out), output)
}

fn summary(folder: &Path, out: &str, args: &[&str]) -> Value {
    let (out, output) = shootout(folder, out, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

/// By group: its tuning trials.
fn tuning(summary: &Value) -> BTreeMap<String, Vec<Value>> {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for trial in summary["tuning"].as_array().unwrap() {
        groups.entry(trial["group"].as_str().unwrap().to_owned()).or_default().push(trial.clone());
    }
    groups
}

fn best(trials: &[Value]) -> f64 {
    trials.iter().filter_map(|trial| trial["final_loss"].as_f64()).fold(f64::INFINITY, f64::min)
}

#[test]
fn halving_finds_what_whole_trials_find_for_two_fifths_of_the_updates() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tuning(&summary(folder.path(), "whole", &["--tune", "16", "--seeds", "1"]));
    let steps = whole["adam"].iter().map(|trial| trial["steps"].as_u64().unwrap()).max().unwrap();
    let budget = 16 * steps * 2 / 5;
    let args = ["--tune-steps", &budget.to_string(), "--seeds", "1"];
    let halving = summary(folder.path(), "halving", &args);
    let mut worse = Vec::new();
    for (group, trials) in tuning(&halving) {
        let made: u64 = trials.iter().map(|trial| trial["steps"].as_u64().unwrap()).sum();
        assert!(made <= budget && made > budget - steps - steps / 2, "{group}: {made} of {budget}");
        let stopped = trials.iter().filter(|trial| trial["stopped"] == true);
        for trial in stopped.clone() {
            assert!(trial["steps"].as_u64().unwrap() < steps && trial["final_loss"].is_null(), "{trial}");
        }
        let stopped = stopped.count();
        assert!(stopped >= 4 && trials.len() - stopped >= 4, "{group}: {stopped} of {} stopped", trials.len());
        worse.push((best(&trials) / best(&whole[&group]), group));
    }
    worse.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The middle of six rules, and the worst. Other processors round otherwise, so there is room: it was 1.004 and 1.027.
    assert!(worse[3].0 < 1.03 && worse[5].0 < 1.15, "{worse:?}");

    // One trial at a time is the same search.
    let again = summary(folder.path(), "again", &[&args[..], &["--jobs", "1", "--threads", "1"]].concat());
    let ids = |summary: &Value| {
        let trials = summary["tuning"].as_array().unwrap().clone();
        trials
            .into_iter()
            .map(|trial| (trial["id"].clone(), trial["steps"].clone(), trial["best_loss"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ids(&halving));
}

#[test]
fn a_budget_is_one_whole_trial_at_least() {
    let folder = tempfile::tempdir().unwrap();
    for (args, parts) in [
        (&["--tune-steps", "1172"][..], &["--tune-steps 1172", "at least 1173"][..]),
        (&["--tune-steps", "0"], &["--tune-steps"]),
        (&["--tune-steps", "5000", "--tune", "3"], &["--tune"]),
        (&["--tune-steps", "9000000000000000000"], &["--tune-steps 9000000000000000000", "at most"]),
    ] {
        let (out, output) = shootout(folder.path(), "out", args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
        assert!(!out.exists(), "{args:?}");
    }
}

/// Where momentum is 0, the two are the same, and so are their learning rates: the sequence is one for all.
#[test]
fn groups_that_come_to_the_same_have_trials_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--opt", "sgd:momentum=0", "--opt", "sgd", "--space", "sgd:lr=0.01..1,momentum=0|0.5..0.9"];
    let output = Command::new(env!("CARGO_BIN_EXE_shootout"))
        .args(args)
        .args(["--steps", "30", "--tune", "12", "--seeds", "1", "--out", "out"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = fs::read_to_string(folder.path().join("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for trial in summary["tuning"].as_array().unwrap() {
        let id = trial["id"].as_str().unwrap();
        let record = fs::read_to_string(folder.path().join("out/trials").join(id).join("trial.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["group"], trial["group"], "{id}");
        let optimizer = record["config"]["optimizer"].as_str().unwrap().to_owned();
        ends.entry(optimizer).or_default().push(trial["final_loss"].to_string());
    }
    let shared: Vec<_> = ends.values().filter(|losses| losses.len() > 1).collect();
    assert!(!shared.is_empty() && shared.iter().all(|losses| losses.len() == 2 && losses[0] == losses[1]), "{ends:?}");
}
