//! The commands that the documents show do run, in short.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The documents, from the folder that tests run in.
const DOCUMENTS: [&str; 2] = ["../README.md", "README.md"];
const PROGRAMS: [(&str, &str); 4] = [
    ("report", env!("CARGO_BIN_EXE_report")),
    ("schedules", env!("CARGO_BIN_EXE_schedules")),
    ("shootout", env!("CARGO_BIN_EXE_shootout")),
    ("warmup", env!("CARGO_BIN_EXE_warmup")),
];
/// Options that say how long a run is, and what they are here: no shorter than the longest warmup that is shown.
const LENGTHS: [(&str, &str); 4] = [("--steps", "101"), ("--epochs", "1"), ("--seeds", "1"), ("--tune", "2")];

/// The programs and arguments that a document shows.
fn commands(document: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(document).unwrap().replace("\\\n", " ");
    let of = |line: &str| {
        let words = line.split(" # ").next()?.strip_prefix("cargo run --release --bin ")?.split_whitespace();
        // A shell takes the quotes away; no word here has a blank in them.
        let mut words = words.filter(|word| *word != "--").map(|word| word.trim_matches('\'').to_owned());
        Some((words.next()?, words.collect()))
    };
    text.lines().filter_map(of).collect()
}

/// `args` for a run of moments in `out`; none where it needs data that this machine lacks.
fn shortened(name: &str, args: &[String], out: &Path) -> Option<Vec<String>> {
    let mut short: Vec<String> = Vec::new();
    let mut args = args.iter().peekable();
    let mut has_length = false;
    while let Some(arg) = args.next() {
        let length = LENGTHS.iter().find(|(option, _)| option == arg);
        let value = match length {
            Some((_, value)) => args.next().map(|_| (*value).to_owned()),
            None if arg == "--data-dir" => {
                args.next();
                Some(std::env::var("DESCENT_DATA").ok()?)
            }
            None => None,
        };
        has_length |= matches!(arg.as_str(), "--steps" | "--epochs");
        short.push(arg.clone());
        short.extend(value);
    }
    if name == "warmup" && !has_length {
        // Its own schedule has a warmup of 150.
        short.extend(["--steps", "151"].map(str::to_owned));
    }
    short.extend(["--out".to_owned(), out.to_str().unwrap().to_owned()]);
    Some(short)
}

#[test]
fn every_command_in_the_documents_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut outs: Vec<PathBuf> = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut all, mut reports) = (Vec::new(), 0);
    for document in DOCUMENTS {
        all.extend(commands(document).into_iter().filter(|command| seen.insert(command.clone())));
    }
    // Reports need runs.
    all.sort_by_key(|(name, _)| name == "report");
    for (name, args) in &all {
        let out = folder.path().join(format!("out{}", outs.len()));
        let Some(mut args) = shortened(name, args, &out) else {
            println!("skipped, since DESCENT_DATA names no folder with the data sets: {name} {}", args.join(" "));
            continue;
        };
        if name == "report" {
            reports += 1;
            let mut runs = outs.iter();
            for arg in args.iter_mut().filter(|arg| arg.starts_with("OUT")) {
                *arg = runs.next().unwrap().to_str().unwrap().to_owned();
            }
        }
        let program = PROGRAMS.iter().find(|(known, _)| known == name).unwrap().1;
        let output = Command::new(program).args(&args).current_dir(folder.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {}: {stderr}", args.join(" "));
        let page = if name == "report" { out.clone() } else { out.join("report.html") };
        assert!(fs::read_to_string(&page).unwrap().contains("<html"), "{}", page.display());
        if name != "report" {
            outs.push(out);
        }
    }
    assert!(outs.len() >= 6 && reports >= 1, "{} runs and {reports} reports are shown", outs.len());
}

/// The other command of the first page: it runs this test.
#[test]
fn the_checks_run_what_the_first_page_names() {
    let (readme, checks) = (fs::read_to_string("../README.md").unwrap(), fs::read_to_string("../.ci/run").unwrap());
    let command = "cargo test --release --workspace";
    let has = |text: &str| text.lines().any(|line| line.split('#').next().unwrap().trim() == command);
    assert!(has(&readme) && has(&checks), "{command}");
}

/// A program of `experiments/examples`. `cargo test` builds it, but not where one test is chosen.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(PROGRAMS[0].1).parent().unwrap();
    let profile = folder.file_name().unwrap().to_str().unwrap();
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut cargo = Command::new(env!("CARGO"));
    let build = cargo.args(["build", "--quiet", "--workspace", "--profile", profile, "--example", name]);
    assert!(build.status().unwrap().success());
    folder.join("examples").join(name)
}

#[test]
fn the_command_line_is_open_to_a_rule_of_ones_own() {
    let (program, folder) = (example("own_rule"), tempfile::tempdir().unwrap());
    let run = |program: &Path, args: &[&str]| Command::new(program).args(args).current_dir(&folder).output().unwrap();
    let short = ["--steps", "3", "--seeds", "1"];
    for (args, status, parts) in [
        (&["--list"][..], 0, &["\n  softsign            Momentum, squashed to steps below the learning rate\n"][..]),
        (
            &["--list", "SoftSign"],
            0,
            &["softness=0.001", "a number >= 0", "--tune searches lr=1e-4..1,weight_decay=0|0.001..0.1,"],
        ),
        (&["--opt", "softsing"], 2, &["unknown optimizer `softsing`: did you mean `softsign`?"]),
        (
            &["--opt", "softsign:softness=-1"],
            2,
            &["softsign: softness = -1.0 is out of range: it must be a number >= 0"],
        ),
        (&["--tune", "2", "--opt", "softsign", "--space", "softsign:softnes=1..2"], 2, &["did you mean `softness`?"]),
        (&["--out", "a"], 0, &["softsign:lr=3e-3", "adamw:lr=2e-3"]),
        (&["--out", "b", "--opt", "sam:base=softsign,rho=0.1"], 0, &["sam:base=softsign,rho=0.1"]),
        (&["--out", "c", "--tune", "2", "--opt", "softsign", "--space", "softsign:softness=1e-3..1"], 0, &["softsign"]),
        (&["--out", "a", "--resume"], 0, &["softsign:lr=3e-3"]),
    ] {
        let is_run = args.contains(&"--out") && !args.contains(&"--resume");
        let output = run(&program, &[args, if is_run { &short } else { &[] }].concat());
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{args:?} does not tell {part:?}: {text}");
        }
    }
    // A program that does not know the rule reads the records.
    let output = run(Path::new(PROGRAMS[0].1), &["a", "b", "c", "--out", "report.html"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trial = fs::read_to_string(folder.path().join("a/experiment.json")).unwrap();
    assert!(trial.contains("softsign"), "{trial}");
}
