//! More than one thing is compared at a time: lists of batch sizes, of clipping, and of any key of an optimizer, a schedule or a model.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SHOOTOUT: &str = env!("CARGO_BIN_EXE_shootout");
const SCHEDULES: &str = env!("CARGO_BIN_EXE_schedules");
const WARMUP: &str = env!("CARGO_BIN_EXE_warmup");
const REPORT: &str = env!("CARGO_BIN_EXE_report");

fn program(program: &str, folder: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(folder).env_remove("RUST_LOG").output().unwrap()
}

/// Runs with `args` into the new folder `out` inside `folder`, which must succeed.
fn run(name: &str, folder: &Path, out: &str, args: &[&str]) -> PathBuf {
    let output = program(name, folder, &[args, &["--out", out]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    folder.join(out)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

/// The groups of a run: names and factors.
fn groups(out: &Path) -> Vec<(String, String)> {
    let factors = |group: &Value| {
        let factors = group["factors"].as_object().unwrap().iter();
        factors.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect::<Vec<_>>().join(" ")
    };
    let experiment = json(&out.join("experiment.json"));
    let group = |group: &Value| (group["name"].as_str().unwrap().to_owned(), factors(group));
    list(&experiment, "groups").iter().map(group).collect()
}

/// What is measured in each trial, without times.
fn measurements(out: &Path) -> BTreeMap<String, String> {
    let trial = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path().join("metrics.jsonl")).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds").unwrap();
            line.to_string() + "\n"
        };
        (entry.file_name().into_string().unwrap(), text.lines().map(line).collect())
    };
    fs::read_dir(out.join("trials")).unwrap().map(trial).collect()
}

#[test]
fn each_value_of_a_list_is_a_factor() {
    let folder = tempfile::tempdir().unwrap();
    let short = ["--steps", "2", "--seeds", "1"];
    type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);
    let rows: &[Row] = &[
        // Nothing is listed.
        (
            SHOOTOUT,
            &["--opt", "sgd:lr=0.1", "--batch-size", "8", "--clip", "1"],
            &[("sgd:lr=0.1", "optimizer=sgd:lr=0.1")],
        ),
        (
            SHOOTOUT,
            &["--opt", "adamw:lr=1e-3|3e-3,weight_decay=0.1|0.5"],
            &[
                ("adamw, lr 0.001, weight_decay 0.1", "lr=0.001 optimizer=adamw weight_decay=0.1"),
                ("adamw, lr 0.001, weight_decay 0.5", "lr=0.001 optimizer=adamw weight_decay=0.5"),
                ("adamw, lr 0.003, weight_decay 0.1", "lr=0.003 optimizer=adamw weight_decay=0.1"),
                ("adamw, lr 0.003, weight_decay 0.5", "lr=0.003 optimizer=adamw weight_decay=0.5"),
            ],
        ),
        // Lists of two optimizers may differ.
        (
            SHOOTOUT,
            &["--opt", "sgd:momentum=0.9,Lr=0.1|0.2", "--opt", "lion"],
            &[
                ("sgd:momentum=0.9, lr 0.1", "lr=0.1 optimizer=sgd:momentum=0.9"),
                ("sgd:momentum=0.9, lr 0.2", "lr=0.2 optimizer=sgd:momentum=0.9"),
                ("lion", "optimizer=lion"),
            ],
        ),
        (
            SHOOTOUT,
            &["--opt", "sgd", "--batch-size", "8,64", "--clip", "0,0.5"],
            &[
                ("sgd, batch size 8, clip 0", "batch_size=8 clip=0 optimizer=sgd"),
                ("sgd, batch size 8, clip 0.5", "batch_size=8 clip=0.5 optimizer=sgd"),
                ("sgd, batch size 64, clip 0", "batch_size=64 clip=0 optimizer=sgd"),
                ("sgd, batch size 64, clip 0.5", "batch_size=64 clip=0.5 optimizer=sgd"),
            ],
        ),
        (
            SHOOTOUT,
            &["--opt", "sgd", "--model", "cnn4:norm=none|batch", "--model", "mlp"],
            &[
                ("sgd, cnn4, norm none", "model=cnn4 norm=none optimizer=sgd"),
                ("sgd, cnn4, norm batch", "model=cnn4 norm=batch optimizer=sgd"),
                ("sgd, mlp", "model=mlp optimizer=sgd"),
            ],
        ),
        (
            SCHEDULES,
            &["--schedule", "constant", "--schedule", "warmup_cosine:warmup=1|2", "--opt", "sgd:lr=0.1|0.2"],
            &[
                ("constant, lr 0.1", "lr=0.1 schedule=constant"),
                ("warmup_cosine, warmup 1, lr 0.1", "lr=0.1 schedule=warmup_cosine warmup=1"),
                ("warmup_cosine, warmup 2, lr 0.1", "lr=0.1 schedule=warmup_cosine warmup=2"),
                ("constant, lr 0.2", "lr=0.2 schedule=constant"),
                ("warmup_cosine, warmup 1, lr 0.2", "lr=0.2 schedule=warmup_cosine warmup=1"),
                ("warmup_cosine, warmup 2, lr 0.2", "lr=0.2 schedule=warmup_cosine warmup=2"),
            ],
        ),
        (
            WARMUP,
            &["--lr", "1e-3", "--model", "gpt:layers=1,width=16,context=8,norm=pre|post", "--batch-size", "2,4"],
            &[
                ("lr 0.001, warmup, norm pre, batch size 2", "batch_size=2 norm=pre peak=0.001 warmup=yes"),
                ("lr 0.001, no warmup, norm pre, batch size 2", "batch_size=2 norm=pre peak=0.001 warmup=no"),
                ("lr 0.001, warmup, norm pre, batch size 4", "batch_size=4 norm=pre peak=0.001 warmup=yes"),
                ("lr 0.001, no warmup, norm pre, batch size 4", "batch_size=4 norm=pre peak=0.001 warmup=no"),
                ("lr 0.001, warmup, norm post, batch size 2", "batch_size=2 norm=post peak=0.001 warmup=yes"),
                ("lr 0.001, no warmup, norm post, batch size 2", "batch_size=2 norm=post peak=0.001 warmup=no"),
                ("lr 0.001, warmup, norm post, batch size 4", "batch_size=4 norm=post peak=0.001 warmup=yes"),
                ("lr 0.001, no warmup, norm post, batch size 4", "batch_size=4 norm=post peak=0.001 warmup=no"),
            ],
        ),
        (
            WARMUP,
            &[
                "--lr",
                "1e-3",
                "--model",
                "gpt:layers=1,width=16,context=8",
                "--clip",
                "0,1",
                "--opt",
                "adamw:beta2=0.9|0.99",
            ],
            &[
                ("beta2 0.9, lr 0.001, warmup, clip 0", "beta2=0.9 clip=0 peak=0.001 warmup=yes"),
                ("beta2 0.9, lr 0.001, no warmup, clip 0", "beta2=0.9 clip=0 peak=0.001 warmup=no"),
                ("beta2 0.99, lr 0.001, warmup, clip 0", "beta2=0.99 clip=0 peak=0.001 warmup=yes"),
                ("beta2 0.99, lr 0.001, no warmup, clip 0", "beta2=0.99 clip=0 peak=0.001 warmup=no"),
                ("beta2 0.9, lr 0.001, warmup, clip 1", "beta2=0.9 clip=1 peak=0.001 warmup=yes"),
                ("beta2 0.9, lr 0.001, no warmup, clip 1", "beta2=0.9 clip=1 peak=0.001 warmup=no"),
                ("beta2 0.99, lr 0.001, warmup, clip 1", "beta2=0.99 clip=1 peak=0.001 warmup=yes"),
                ("beta2 0.99, lr 0.001, no warmup, clip 1", "beta2=0.99 clip=1 peak=0.001 warmup=no"),
            ],
        ),
    ];
    for (i, (name, args, expected)) in rows.iter().enumerate() {
        let out = run(name, folder.path(), &format!("out{i}"), &[args, &short[..]].concat());
        let expected: Vec<_> = expected.iter().map(|(name, factors)| (name.to_string(), factors.to_string())).collect();
        assert_eq!(groups(&out), expected, "{args:?}");
        // Each trial was trained with the factors of its group.
        let experiment = json(&out.join("experiment.json"));
        for trial in list(&json(&out.join("summary.json")), "trials") {
            let record = json(&out.join("trials").join(trial["id"].as_str().unwrap()).join("trial.json"));
            let config = &record["config"];
            let group = list(&experiment, "groups").iter().find(|group| group["name"] == record["group"]).unwrap();
            for (key, value) in group["factors"].as_object().unwrap() {
                let value = value.as_str().unwrap();
                let text = |key: &str| config[key].as_str().unwrap();
                let is_so = match key.as_str() {
                    "batch_size" => config["batch_size"].as_u64() == value.parse().ok(),
                    "clip" => config["clip"].as_f64().unwrap_or(0.0).to_string() == value,
                    "peak" => text("optimizer").contains(&format!("lr={value}")),
                    "warmup" if *name == WARMUP => true,
                    "optimizer" | "schedule" | "model" => text(key).starts_with(value.split(':').next().unwrap()),
                    key => ["optimizer", "schedule", "model"].iter().any(|of| {
                        let text = text(of);
                        text.contains(&format!(":{key}={value}")) || text.contains(&format!(",{key}={value}"))
                    }),
                };
                assert!(is_so, "{key} of {group} in {config}");
            }
        }
        assert!(program(REPORT, folder.path(), &[out.to_str().unwrap()]).status.success(), "{args:?}");
    }
}

#[test]
fn lists_that_are_none_are_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let many = (1..500).map(|n| format!("{n}e-4")).collect::<Vec<_>>().join("|");
    let too_many = format!("adamw:lr={many},beta1=0.1|0.2,beta2=0.1|0.2");
    for (name, args, parts) in [
        (SHOOTOUT, &["--batch-size", "8,,64"][..], &["--batch-size"][..]),
        (SHOOTOUT, &["--batch-size", "8,64,8"], &["--batch-size 8,64,8", "8 is there twice"]),
        (SHOOTOUT, &["--batch-size", "8,0"], &["--batch-size"]),
        (SHOOTOUT, &["--batch-size", "8,100000"], &["batch size 100000", "too few"]),
        (SHOOTOUT, &["--clip", "0,1,1.0"], &["--clip 0,1,1", "1 is there twice"]),
        (SHOOTOUT, &["--clip", "1,-1"], &["--clip -1", ">= 0"]),
        (SHOOTOUT, &["--clip", "0,1", "--opt", "lbfgs"], &["--clip 1", "`lbfgs`"]),
        (SHOOTOUT, &["--opt", "adamw:lr=1e-3|"], &["`adamw:lr=1e-3|`", "empty"]),
        (SHOOTOUT, &["--opt", "adamw:lr=1e-3|0.001"], &["0.001 twice"]),
        (SHOOTOUT, &["--opt", "adamw:lr=1e-3|-1"], &["lr = -1", "out of range"]),
        (SHOOTOUT, &["--opt", "adamw:lr=1|fast"], &["fast"]),
        (SHOOTOUT, &["--opt", "adamw:bet1=0.1|0.2"], &["did you mean `beta1`?"]),
        (
            SHOOTOUT,
            &["--opt", "adamw:lr=1|2", "--opt", "adamw:lr=2|3"],
            &["`adamw, lr 2` and `adamw, lr 2` are the same"],
        ),
        (
            SHOOTOUT,
            &["--opt", &too_many, "--batch-size", "8,16,32,64", "--seeds", "20"],
            &["7984 groups", "159680 trials"],
        ),
        (SHOOTOUT, &["--schedule", "warmup_cosine:warmup=1|2"], &["schedules"]),
        (SHOOTOUT, &["--tune", "2", "--opt", "rprop:lr=1e-3|1e-2"], &["nothing to search"]),
        (SCHEDULES, &["--schedule", "step:lr=0.1|0.2", "--opt", "sgd:lr=0.1|0.2"], &["`lr` is compared twice"]),
        (WARMUP, &["--opt", "adamw:lr=1e-3|1e-2"], &["--lr"]),
        (WARMUP, &["--model", "gpt:norm=pre|post", "--norm", "pre"], &["--norm pre"]),
    ] {
        let output = program(name, folder.path(), &[args, &["--out", "new"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{args:?}: {stderr} lacks one of {parts:?}");
        assert!(!folder.path().join("new").exists(), "{args:?} left something");
    }
}

#[test]
fn batch_sizes_are_compared_resumed_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["--batch-size", "16,64", "--opt", "sgd:lr=0.1|0.2,momentum=0.9", "--epochs", "1", "--model", "mlp", "--seeds"];
    let out = run(SHOOTOUT, folder.path(), "out", &[&args[..], &["2"]].concat());
    let workloads = json(&out.join("experiment.json"))["workloads"].clone();
    let examples = |workload: &Value| {
        let of = |key: &str| workload[key].as_u64().unwrap();
        assert_eq!(of("evaluate_every"), (of("steps") / 20).max(1));
        (of("batch_size"), of("batch_size") * of("steps"))
    };
    let [(16, small), (64, large)] = [0, 1].map(|i| examples(&workloads[i])) else { panic!("{workloads}") };
    assert!(small.abs_diff(large) < 64, "the same number of examples, but for a part of a batch");

    // `report` makes the same page again.
    let page = fs::read(out.join("report.html")).unwrap();
    assert!(program(REPORT, folder.path(), &["out"]).status.success());
    assert!(fs::read(out.join("report.html")).unwrap() == page);

    // With more seeds, as if it had had them from the start, and by its config.
    let output = program(SHOOTOUT, folder.path(), &["--out", "out", "--resume", "--seeds", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole = run(SHOOTOUT, folder.path(), "whole", &[&args[..], &["3"]].concat());
    assert!(measurements(&out) == measurements(&whole));
    assert_eq!(measurements(&out).len(), 2 * 2 * 3);
    let again = run(SHOOTOUT, folder.path(), "again", &["--config", "out/config.toml"]);
    assert!(measurements(&again) == measurements(&whole) && groups(&again) == groups(&whole));

    // Records that contradict the factors are refused.
    let path = out.join("experiment.json");
    let kept = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"batch_size\": \"16\"", "\"batch_size\": \"64\"", "disagree: "),
        ("\"factors\": {", "\"factors\": {\"clip\": \"1\",", "disagree: clip is `1` and `0`"),
    ] {
        let mut changed: Value = serde_json::from_str(&kept.replace(from, to)).unwrap();
        changed.as_object_mut().unwrap().remove("checksum");
        fs::write(&path, changed.to_string()).unwrap();
        let output = program(REPORT, folder.path(), &["out"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(part), "{to}: {stderr}");
    }
}

#[test]
fn each_group_is_tuned_in_what_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--tune", "2", "--opt", "sgd:momentum=0|0.9", "--opt", "adamw:lr=1e-3|1e-2", "--batch-size", "32,64"];
    let out = run(SHOOTOUT, folder.path(), "out", &[&args[..], &["--steps", "4", "--seeds", "1"]].concat());
    let summary = json(&out.join("summary.json"));
    assert_eq!((list(&summary, "groups").len(), list(&summary, "tuning").len()), (8, 16));
    for group in list(&summary, "groups") {
        let (name, space) = (group["name"].as_str().unwrap(), group["searched"]["space"].as_str().unwrap());
        let (given, searched) = if name.starts_with("sgd") { ("momentum", "lr=") } else { ("lr=", "weight_decay=") };
        assert!(space.contains(searched) && !space.starts_with(given), "{name}: {space}");
    }
}
