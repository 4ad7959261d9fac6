//! The studies: each can be run, and what is said of those that were is what their records say.

use experiments::{Targets, record::Run, report};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Name, path and text of each.
fn studies() -> Vec<(String, PathBuf, String)> {
    let files = fs::read_dir(folder("studies")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut studies: Vec<_> = files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (name, path, text)
        })
        .collect();
    studies.sort();
    studies
}

#[test]
fn every_study_is_named_and_its_program_takes_it() {
    let readme = fs::read_to_string(folder("studies/README.md")).unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (name, path, text) in studies() {
        assert!(readme.contains(&format!("[{name}.toml]({name}.toml)")), "the README lacks {name}");
        let command = text.lines().find_map(|line| line.strip_prefix("# ")?.split_once(" --config "));
        let (program, command) = command.unwrap_or_else(|| panic!("{name} has no command"));
        assert!(command.starts_with(&format!("experiments/studies/{name}.toml")), "{name}: {command}");
        let program = match program {
            "shootout" => env!("CARGO_BIN_EXE_shootout"),
            "schedules" => env!("CARGO_BIN_EXE_schedules"),
            "warmup" => env!("CARGO_BIN_EXE_warmup"),
            other => panic!("{name}: no program is {other}"),
        };
        let mut command = Command::new(program);
        command.arg("--config").arg(&path).args(["--out", &name]).current_dir(nowhere.path());
        // All is checked before data are read, and none are there.
        let needs_data =
            text.lines().any(|line| line.starts_with("dataset") && line.trim() != "dataset = [\"digits\"]");
        command.args(if needs_data { &["--data-dir", "nowhere"][..] } else { &["--steps", "1", "--seeds", "1"] });
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        if needs_data {
            assert!(output.status.code() == Some(2) && message.contains("nowhere"), "{name}: {message}");
        } else {
            assert!(output.status.success(), "{name}: {message}");
        }
        count += 1;
    }
    assert_eq!(count, 9);
}

/// Between the marks of a study stands what the first lines of its page say.
#[test]
fn what_is_said_of_a_study_is_what_its_records_say() {
    let readme = fs::read_to_string(folder("studies/README.md")).unwrap();
    let mut kept = 0;
    for (name, _, text) in studies() {
        let out = folder("results").join(&name);
        if !out.exists() {
            continue;
        }
        kept += 1;
        let run = [Run::read(&out).unwrap()];
        let format = clap::ValueEnum::from_str("json", false).unwrap();
        let json: Value = serde_json::from_str(&report::in_format(&run, &Targets::default(), format).unwrap()).unwrap();
        let answers =
            json["answers"].as_array().unwrap().iter().map(|answer| format!("> {}\n", answer.as_str().unwrap()));
        let expected = answers.collect::<Vec<_>>().join(">\n");
        let found = readme.split(&format!("<!-- {name} -->\n")).nth(1).and_then(|rest| rest.split("\n\n").next());
        assert_eq!(found.map(|found| format!("{found}\n")), Some(expected), "{name}");
        // What the study says is what was run.
        let [study, config] = [text, fs::read_to_string(out.join("config.toml")).unwrap()];
        let [study, config] = [study, config].map(|text| text.parse::<toml::Table>().unwrap());
        for (key, value) in study {
            assert_eq!(config.get(&key), Some(&value), "{name}: {key}");
        }
    }
    assert!(kept >= 2);
}
