//! The program `shootout` as a user runs it.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn shootout(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shootout"))
        .args(args)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs with `args` into the new folder OUT inside `folder`, which must succeed.
fn run(folder: &Path, out: &str, args: &[&str]) -> (PathBuf, Output) {
    let output = shootout(folder, &[args, &["--out", out]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    (folder.join(out), output)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn metrics(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file below `folder`, with its path from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path)
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string())
            }
        }
    }
    found.sort();
    found
}

/// What is measured in each trial, without times.
fn measurements(out: &Path) -> BTreeMap<String, Vec<Value>> {
    let trials = fs::read_dir(out.join("trials")).unwrap();
    let trial = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let mut lines = metrics(&entry.path().join("metrics.jsonl"));
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("seconds").unwrap();
        }
        (entry.file_name().into_string().unwrap(), lines)
    };
    trials.map(trial).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_run_writes_every_record_and_prints_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let (out, output) = run(folder.path(), "out", &["--epochs", "2", "--seeds", "2"]);

    let experiment = json(&out.join("experiment.json"));
    let summary = json(&out.join("summary.json"));
    let ids: Vec<&str> =
        summary["trials"].as_array().unwrap().iter().map(|trial| trial["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3 * 2);
    let mut expected: Vec<String> =
        ["config.toml", "experiment.json", "lock", "log.txt", "report.html", "summary.json"].map(str::to_owned).into();
    expected
        .extend(ids.iter().flat_map(|id| [format!("trials/{id}/metrics.jsonl"), format!("trials/{id}/trial.json")]));
    expected.sort();
    let (pictures, others): (Vec<_>, Vec<_>) = files(&out).into_iter().partition(|file| file.ends_with(".svg"));
    let (events, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|file| file.starts_with("tensorboard/"));
    assert_eq!(others, expected);
    assert!(pictures.contains(&"learning_curves.svg".to_owned()), "{pictures:?}");
    assert_eq!(events.len(), ids.len(), "{events:?}");
    let workload = &experiment["workloads"][0];
    assert_eq!(
        (&experiment["experiment"], &workload["dataset"], &workload["model"], &experiment["device"]),
        (&"shootout".into(), &"digits".into(), &"mlp".into(), &"cpu".into())
    );
    assert_eq!(experiment["seeds"], Value::from(vec![0, 1]));
    assert_eq!(experiment["command_line"].as_array().unwrap().len(), 7);
    assert!(experiment["versions"]["candle"].as_str().unwrap().starts_with("0."));
    let steps = workload["steps"].as_u64().unwrap();
    assert_eq!(steps, 2 * workload["steps_per_epoch"].as_u64().unwrap());
    assert_eq!(workload["parameters"], 17_226);

    assert_eq!(
        keys(&summary),
        ["experiment", "dataset", "model", "groups", "trials", "tuning", "peak_memory_bytes", "checksum"]
    );
    // More than the program and less than a machine has.
    #[cfg(unix)]
    assert!((10 << 20..10 << 30).contains(&summary["peak_memory_bytes"].as_u64().unwrap()));
    let groups = summary["groups"].as_array().unwrap();
    for (group, optimizer) in groups.iter().zip(["sgd", "adam", "adamw"]) {
        let expected = [
            "name",
            "dataset",
            "model",
            "optimizer",
            "schedule",
            "hyperparameters",
            "searched",
            "n",
            "median_loss",
            "loss",
            "accuracy",
            "seconds",
            "diverged",
        ];
        assert_eq!(keys(group), expected);
        assert_eq!((&group["optimizer"], &group["n"], &group["diverged"]), (&optimizer.into(), &2.into(), &0.into()));
        assert!(group["hyperparameters"]["lr"].as_f64().unwrap() > 0.0);
        let own: Vec<&Value> =
            summary["trials"].as_array().unwrap().iter().filter(|t| t["group"] == group["name"]).collect();
        assert_eq!(own.len(), 2);
        for (estimate, field) in [("loss", "final_loss"), ("accuracy", "final_accuracy"), ("seconds", "seconds")] {
            let values: Vec<f64> = own.iter().map(|trial| trial[field].as_f64().unwrap()).collect();
            let mean = (values[0] + values[1]) / 2.0;
            // Student's t with one degree of freedom, times the standard error; on a logarithmic or a logit scale.
            let half = 12.706204736174707 * (values[0] - values[1]).abs() / 2.0;
            let (low, high) = if estimate == "accuracy" {
                let odds = |shift: f64| mean / (1.0 - mean) * (shift / (mean * (1.0 - mean))).exp();
                (odds(-half) / (1.0 + odds(-half)), odds(half) / (1.0 + odds(half)))
            } else {
                (mean * (-half / mean).exp(), mean * (half / mean).exp())
            };
            for (found, expected) in [
                (&group[estimate]["mean"], mean),
                (&group[estimate]["ci95"][0], low),
                (&group[estimate]["ci95"][1], high),
            ] {
                assert!((found.as_f64().unwrap() - expected).abs() <= 1e-9 * high, "{group}");
            }
            if estimate == "loss" {
                assert!((group["median_loss"].as_f64().unwrap() - mean).abs() <= 1e-12, "{group}");
            }
        }
        assert!(text(&output.stdout).contains(group["name"].as_str().unwrap()));
        assert!(group["accuracy"]["mean"].as_f64().unwrap() > 0.5);
    }

    for trial in summary["trials"].as_array().unwrap() {
        let expected = [
            "id",
            "group",
            "seed",
            "final_loss",
            "best_loss",
            "final_accuracy",
            "best_accuracy",
            "steps",
            "seconds",
            "diverged",
        ];
        assert_eq!(keys(trial), expected);
        let id = trial["id"].as_str().unwrap();
        let record = json(&out.join("trials").join(id).join("trial.json"));
        assert_eq!((&record["id"], &record["config"]["seed"]), (&trial["id"], &trial["seed"]));
        assert_eq!(record["outcome"]["final_loss"], trial["final_loss"]);
        let lines = metrics(&out.join("trials").join(id).join("metrics.jsonl"));
        let (train, eval): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["kind"] == "train");
        assert_eq!(eval.len(), 22);
        for line in &eval {
            assert_eq!(keys(line), ["kind", "step", "loss", "accuracy", "seconds"]);
        }
        let mut last = 0;
        for line in &train {
            assert_eq!(keys(line), ["kind", "step", "epoch", "loss", "lr", "grad_norm", "seconds"]);
            let step = line["step"].as_u64().unwrap();
            assert!(step > last && step - last <= 10);
            assert_eq!(line["epoch"], (step - 1) * 2 / steps);
            assert!(line["grad_norm"].as_f64().unwrap() > 0.0 && line["lr"].as_f64().unwrap() >= 0.0);
            last = step;
        }
        assert_eq!((last, &trial["steps"]), (steps, &steps.into()));
        assert_eq!(eval[21]["loss"], trial["final_loss"]);
        assert_eq!(eval[21]["accuracy"], trial["final_accuracy"]);
    }

    let svg = fs::read_to_string(out.join("learning_curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("test accuracy") && svg.contains("adamw"));
    assert!(fs::read_to_string(out.join("log.txt")).unwrap().contains("begins"));
    let finished = text(&output.stderr).lines().filter(|line| line.contains("loss")).count();
    assert_eq!(finished, 6, "a line per trial: {}", text(&output.stderr));
}

#[test]
fn the_same_seed_gives_the_same_bits_whatever_the_threads_and_jobs() {
    let folder = tempfile::tempdir().unwrap();
    for model in ["mlp", "cnn", "cnn4:norm=batch", "resnet20"] {
        let args = ["--model", model, "--steps", "4", "--seeds", "2", "--opt", "adamw", "--opt", "sgd:momentum=0.9"];
        let first = measurements(&run(folder.path(), &format!("{}-first", model.replace(':', "-")), &args).0);
        assert_eq!(first.len(), 4);
        for (name, more) in [
            ("again", &["--threads", "1", "--jobs", "1"][..]),
            ("two-threads", &["--threads", "2", "--jobs", "1"]),
            ("two-jobs", &["--threads", "2", "--jobs", "2"]),
        ] {
            let (out, _) = run(folder.path(), &format!("{}-{name}", model.replace(':', "-")), &[&args, more].concat());
            assert_eq!(measurements(&out), first, "{model} {name}");
        }
        let mut trials = first.values();
        let one = trials.next().unwrap();
        assert!(trials.all(|other| other != one), "other seeds and optimizers have other losses");
    }
}

#[test]
fn an_average_of_the_weights_is_in_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--steps", "60", "--seeds", "2", "--opt", "adamw", "--opt", "lion", "--ema", "0.9", "--lookahead", "6"];
    let (out, output) = run(folder.path(), "out", &args);
    let stdout = text(&output.stdout);
    assert!(stdout.contains("EMA loss") && stdout.contains("EMA accuracy"), "{stdout}");
    assert!(text(&output.stderr).contains("(EMA: loss "), "{}", text(&output.stderr));
    let summary = json(&out.join("summary.json"));
    for group in summary["groups"].as_array().unwrap() {
        assert!(group["ema_loss"]["mean"].is_number() && group["ema_accuracy"]["mean"].is_number(), "{group}");
    }
    for trial in summary["trials"].as_array().unwrap() {
        let folder = out.join("trials").join(trial["id"].as_str().unwrap());
        let lines = metrics(&folder.join("metrics.jsonl"));
        let steps = |kind: &str| -> Vec<u64> {
            lines.iter().filter(|line| line["kind"] == kind).map(|line| line["step"].as_u64().unwrap()).collect()
        };
        assert!(!steps("ema").is_empty() && steps("ema") == steps("eval"));
        assert_eq!(lines.iter().rfind(|line| line["kind"] == "ema").unwrap()["loss"], trial["ema_loss"]);
        let config = &json(&folder.join("trial.json"))["config"];
        assert_eq!((&config["ema"], &config["lookahead"]), (&0.9.into(), &6.into()));
    }
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("EMA loss") && report.contains("EMA accuracy (%)"));
    let events = files(&out.join("tensorboard"));
    let events = fs::read(out.join("tensorboard").join(&events[0])).unwrap();
    for tag in ["eval/ema_loss", "eval/ema_accuracy", "lookahead"] {
        assert!(events.windows(tag.len()).any(|part| part == tag.as_bytes()), "{tag}");
    }
}

/// Each evaluates the loss elsewhere, more than once, or of other labels.
#[test]
fn rules_of_every_kind_train() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = ["sophia:lr=1e-3", "schedule_free_sgd", "schedule_free_adamw", "prodigy", "sam:base=adamw"];
    let opts = kinds.into_iter().flat_map(|rule| ["--opt", rule]);
    let args: Vec<&str> = ["--steps", "300", "--seeds", "1"].into_iter().chain(opts).collect();
    let (out, _) = run(folder.path(), "out", &args);
    for group in json(&out.join("summary.json"))["groups"].as_array().unwrap() {
        let loss = group["loss"]["mean"].as_f64();
        println!("{}: {loss:?}", group["name"]);
        assert!(loss.is_some_and(|loss| loss < 1.0), "{group}");
    }
    // A line search asks for batches that say much of the whole.
    let args = ["--steps", "30", "--batch-size", "1000", "--seeds", "1", "--opt", "lbfgs"];
    let (out, _) = run(folder.path(), "lbfgs", &args);
    let group = &json(&out.join("summary.json"))["groups"][0];
    assert!(group["accuracy"]["mean"].as_f64().is_some_and(|accuracy| accuracy > 0.9), "{group}");
}

#[test]
fn candles_own_operations_are_an_option_that_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--model", "cnn", "--steps", "20", "--seeds", "1", "--opt", "sgd:lr=0.05"];
    let [(ours, our_losses), (candles, candles_losses)] = ["descent", "candle"].map(|ops| {
        let more: &[&str] = if ops == "candle" { &["--ops", ops] } else { &[] };
        let (out, _) = run(folder.path(), ops, &[&args, more].concat());
        assert_eq!(json(&out.join("experiment.json"))["config"]["ops"], ops);
        assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains(&format!("ops = \"{ops}\"")));
        let mut trials = measurements(&out).into_iter();
        let (id, lines) = trials.next().unwrap();
        let losses: Vec<f64> = lines.iter().map(|line| line["loss"].as_f64().unwrap()).collect();
        (json(&out.join("trials").join(id).join("trial.json")), losses)
    });
    assert_eq!((ours["config"].get("ops"), &candles["config"]["ops"]), (None, &"candle".into()));
    assert_ne!(ours["id"], candles["id"]);
    // Updates 1, 10 and 20, and an evaluation after each: not the same bits, but the same losses.
    assert_eq!(our_losses.len(), 23);
    assert_ne!(our_losses, candles_losses);
    for (a, b) in our_losses.iter().zip(&candles_losses) {
        assert!((a - b).abs() < 1e-4 * b, "{our_losses:?} and {candles_losses:?}");
    }
}

#[test]
fn a_trial_that_diverges_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--steps", "50", "--seeds", "2", "--opt", "sgd:lr=1e30", "--opt", "adam", "--schedule", "constant"];
    let (out, output) = run(folder.path(), "out", &args);
    let summary = json(&out.join("summary.json"));
    let group = &summary["groups"][0];
    assert_eq!((&group["n"], &group["diverged"]), (&2.into(), &2.into()));
    assert_eq!((&group["loss"]["mean"], &group["loss"]["ci95"]), (&Value::Null, &Value::Null));
    assert_eq!(summary["groups"][1]["diverged"], 0);
    for trial in summary["trials"].as_array().unwrap().iter().filter(|trial| trial["group"] == group["name"]) {
        assert_eq!((&trial["diverged"], &trial["final_loss"]), (&true.into(), &Value::Null));
        let folder = out.join("trials").join(trial["id"].as_str().unwrap());
        let cause = json(&folder.join("trial.json"))["outcome"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains(&format!("at step {}", trial["steps"])), "{cause}");
        let last = metrics(&folder.join("metrics.jsonl")).last().unwrap()["loss"].clone();
        assert!(last == "nan" || last == "inf" || last.as_f64().unwrap() > 1000.0, "{last}");
    }
    assert!(text(&output.stderr).contains("diverged"));
}

#[test]
fn wrong_input_is_one_line_and_status_2_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/mine"), "").unwrap();
    fs::create_dir(at("empty")).unwrap();
    let before = files(folder.path());
    for (args, parts) in [
        (&["--opt", "adamww"][..], &["`adamww`", "did you mean `adamw`?"][..]),
        (&["--opt", "nothing-like-it"], &["nothing-like-it", "sgd"]),
        (&["--opt", "adamw:bet1=0.9"], &["bet1", "did you mean `beta1`?"]),
        (&["--opt", "adamw:beta1=1.5"], &["adamw", "beta1", "1.5", "[0, 1)"]),
        (&["--opt", "adamw:lr=fast"], &["lr", "fast"]),
        (&["--opt", "adamw:lr"], &["lr"]),
        (&["--opt", "adam", "--opt", "adam:lr=0.001"], &["`adam`", "`adam:lr=0.001`", "the same"]),
        (&["--schedule", "cosin"], &["cosin", "did you mean", "cosine"]),
        (&["--schedule", "cosine:min=0"], &["min"]),
        (&["--dataset", "digit"], &["digit", "did you mean", "digits"]),
        (&["--dataset", "imagenet"], &["imagenet", "digits"]),
        (&["--model", "resnet2"], &["`resnet2`", "did you mean `resnet20`?"]),
        (&["--device", "gpu"], &["`gpu`", "cpu"]),
        (&["--device", "cuda:x"], &["`cuda:x`"]),
        (&["--precision", "tf32"], &["`tf32`", "cuda", "bf16"]),
        #[cfg(not(feature = "cuda"))]
        (&["--device", "cuda"], &["`cuda`", "--features cuda"]),
        #[cfg(not(feature = "metal"))]
        (&["--device", "metal"], &["`metal`", "--features metal"]),
        (&["--batch-size", "100000"], &["100000", "digits"]),
        (&["--max-loss", "inf"], &["--max-loss inf", "finite"]),
        (&["--max-loss", "1e400"], &["--max-loss inf", "finite"]),
        (&["--clip", "inf"], &["--clip inf", "finite"]),
        (&["--target-accuracy", "0"], &["--target-accuracy 0", "above 0"]),
        (&["--target-loss", "-1"], &["--target-loss -1", "above 0"]),
        (&["--target-loss", "inf"], &["--target-loss inf", "finite"]),
        (&["--steps", "9223372036854775808"], &["--steps 9223372036854775808", "9223372036854775807"]),
        (&["--seeds", "0"], &["'0'", "--seeds"]),
        (&["--scale-recipe"], &["required", "--recipe"]),
        (&["--max-loss=-inf"], &["--max-loss -inf", "finite"]),
        (&["--sed", "3"], &["'--sed' found; tip:", "--seeds"]),
        (&["--seeds", "9000000000000000000"], &["--seeds 9000000000000000000", "100000"]),
        (&["--seeds", "4294967296"], &["--seeds 4294967296", "100000"]),
        (&["--seeds", "100000"], &["--seeds 100000", "3 groups", "300000 trials"]),
        (&["--threads", "100000"], &["--threads 100000", "core"]),
        (&["--jobs", "100000"], &["--jobs 100000", "core"]),
        (&["--text", "file", "--dataset", "digits"], &["--text ", "file: ", "--dataset digits"]),
        (&["--epochs", "1", "--schedule", "cosine_restarts:period=0"], &["period", "0"]),
        (&["--dataset", "cifar10", "--data-dir", "nowhere"], &["nowhere"]),
        (&["--dataset", "fashion-mnist", "--data-dir", "empty"], &["empty"]),
        (&["--out", "full"], &["`full`", "not empty"]),
        (&["--out", "file"], &["`file`"]),
        (&["--out", "file/out"], &["`file/out`"]),
    ] {
        let args = if args.contains(&"--out") { args.to_vec() } else { [args, &["--out", "new/out"]].concat() };
        let output = shootout(folder.path(), &args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{args:?}: {stderr} lacks one of {parts:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!at("new").exists() && files(folder.path()) == before, "{args:?} left something");
    }
}

/// The length of a run may be known from its data alone.
#[test]
fn a_schedule_may_fit_the_length_of_the_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--epochs", "1", "--seeds", "1", "--opt", "sgd", "--schedule", "cosine_restarts:period=5"];
    run(folder.path(), "out", &args);
    let args = ["--steps", "5001", "--seeds", "1", "--opt", "sgd", "--schedule", "cosine_restarts:period=5"];
    let output = shootout(folder.path(), &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("steps=5001"), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn a_path_that_records_cannot_hold_is_named_with_its_option() {
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    for option in ["--text", "--data-dir"] {
        let path = std::ffi::OsStr::from_bytes(b"a\xff");
        let output = Command::new(env!("CARGO_BIN_EXE_shootout"))
            .arg(option)
            .arg(path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(option) && stderr.contains("UTF-8"), "{stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_shootout"))
        .arg("--list")
        .current_dir(folder.path())
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: cannot write to the standard output: No space left"), "{stderr}");
    assert_eq!(stderr.matches("os error").count(), 1, "{stderr}");
}

/// A model of 48 MB an update and one of 270 MB, which is far more than the program itself.
#[cfg(target_os = "linux")]
#[test]
fn training_takes_what_it_is_said_to_take_at_least_and_not_much_more() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text"), "abcdefghijklmnop".repeat(2000)).unwrap();
    for (model, batch_size, args) in [
        ("gpt:context=512,layers=2", 8, &["--text", "text"][..]),
        ("gpt:context=64,layers=6,width=256", 64, &["--text", "text"]),
        ("resnet20", 1000, &[]),
    ] {
        let out = format!("{model}-{batch_size}");
        let batch = batch_size.to_string();
        let args = [args, &["--model", model, "--batch-size", &batch, "--steps", "1", "--seeds", "1", "--opt", "sgd"]];
        let (out, _) = run(folder.path(), &out, &args.concat());
        let peak = json(&out.join("summary.json"))["peak_memory_bytes"].as_u64().unwrap();
        let model = experiments::problem::models::parse(model).unwrap();
        let shape = match model.context() {
            Some(context) => experiments::problem::models::Shape::Text { vocabulary: 16, context },
            None => {
                let image = experiments::problem::models::ImageShape { channels: 1, height: 8, width: 8, classes: 10 };
                experiments::problem::models::Shape::Images(image)
            }
        };
        let dtype = experiments::config::precision::Precision::F32.dtype();
        let least = experiments::run::memory::least(&model.least(&shape), batch_size, dtype);
        println!("{model}: at least {} MB, and {} MB", least >> 20, peak >> 20);
        assert!(least < peak && peak < 4 * least + (200 << 20), "{model}: at least {least}, and {peak}");
    }
}

#[test]
fn programs_that_start_in_the_same_second_have_a_folder_each() {
    let folder = tempfile::tempdir().unwrap();
    let start = |_| {
        Command::new(env!("CARGO_BIN_EXE_shootout"))
            .args(["--steps", "1", "--seeds", "1", "--opt", "sgd"])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let started: Vec<_> = (0..12).map(start).collect();
    for mut child in started {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 12);
}

#[test]
fn a_file_of_options_has_paths_relative_to_it_and_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/abc.txt"), "abcdefgh".repeat(400)).unwrap();
    let file = "dataset = [\"language\", \"text\"]\ntext = \"abc.txt\"\nmodel = [\"gpt:layers=1,width=8,context=8\"]\n";
    fs::write(folder.path().join("sub/run.toml"), file).unwrap();
    let args = ["--config", "sub/run.toml", "--steps", "2", "--seeds", "1", "--opt", "sgd"];
    let (out, _) = run(folder.path(), "out", &args);
    assert_eq!(json(&out.join("summary.json"))["dataset"], "language, text");
    let stored = out.join("config.toml");
    let (again, _) = run(folder.path(), "again", &["--config", stored.to_str().unwrap()]);
    assert_eq!(measurements(&again), measurements(&out));
    for workload in json(&out.join("experiment.json"))["workloads"].as_array().unwrap() {
        assert_eq!(workload["data_sha256"].as_str().unwrap().len(), 64);
    }
}

#[test]
fn tuning_says_which_trial_of_how_many_and_what_it_tried() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--steps", "2", "--seeds", "1", "--tune", "3", "--opt", "sgd:momentum=0.9"];
    let (_, output) = run(folder.path(), "out", &args);
    for number in 1..=3 {
        let start = format!("sgd:momentum=0.9, tuning {number} of 3: loss ");
        let stderr = text(&output.stderr);
        assert!(stderr.lines().any(|line| line.starts_with(&start) && line.contains(" with lr=")), "{stderr}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["--epochs", "1", "--steps", "1"][..],
        &["--seeds", "0"],
        &["--epochs", "-1"],
        &["--optimizer", "adam"],
        &["--ops", "x"],
    ] {
        let output = shootout(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).starts_with("error: ") && !text(&output.stderr).contains("panicked"), "{args:?}");
        assert!(files(folder.path()).is_empty(), "{args:?}");
    }
}

#[test]
fn the_default_folder_is_new_for_every_run() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = shootout(folder.path(), &["--steps", "1", "--seeds", "1", "--opt", "sgd"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let runs: Vec<_> = fs::read_dir(folder.path().join("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert!(run.file_name().unwrap().to_str().unwrap().starts_with("shootout-"));
        let summary = json(&run.join("summary.json"));
        assert_eq!((&summary["groups"][0]["n"], &summary["groups"][0]["loss"]["ci95"]), (&1.into(), &Value::Null));
    }
}

#[test]
fn the_list_names_everything_that_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let output = shootout(folder.path(), &["--list"]);
    assert!(output.status.success());
    let list = text(&output.stdout);
    let rules: Vec<&str> = optim::rules::specs().map(|spec| spec.name).collect();
    let schedules: Vec<&str> = optim::schedule::all().iter().map(|entry| entry.name).collect();
    assert!(rules.len() >= 8 && schedules.len() >= 9);
    let others = ["digits", "fashion-mnist", "cifar10", "mlp", "cnn", "cnn4", "resnet20"];
    for name in rules.into_iter().chain(schedules).chain(others) {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} is not in the list");
    }
    let output = shootout(folder.path(), &["--list", "adamw"]);
    assert!(output.status.success());
    let adamw = text(&output.stdout);
    assert!(adamw.contains("--tune searches lr=1e-5..0.1,weight_decay=0|0.003..0.3,"), "{adamw}");
    assert!(adamw.contains("beta2=0.999") && files(folder.path()).is_empty());
    let output = shootout(folder.path(), &["--list", "adamx"]);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("`adamx`") && stderr.contains("did you mean `adam"), "{stderr}");
}

#[test]
fn the_log_goes_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--steps", "1", "--seeds", "1", "--opt", "sgd"];
    for (out, more, on_stderr, in_file) in [
        ("quiet", &[][..], (false, false), (true, false)),
        ("info", &["-v"], (true, false), (true, false)),
        ("debug", &["-vv"], (true, true), (true, true)),
    ] {
        let (out, output) = run(folder.path(), out, &[&args, more].concat());
        let (info, debug) = ("begins", "built the model");
        let found = |log: &str| (log.contains(info), log.contains(debug));
        assert_eq!(found(text(&output.stderr)), on_stderr, "{more:?} on stderr");
        assert_eq!(found(&fs::read_to_string(out.join("log.txt")).unwrap()), in_file, "{more:?} in the file");
    }
}

/// With the folder DESCENT_DATA there, ResNet-20 trains on CIFAR-10 itself.
#[test]
fn real_photographs_train() {
    let Some(data) = std::env::var_os("DESCENT_DATA") else {
        return println!("skipped: DESCENT_DATA names no folder with the data sets");
    };
    let folder = tempfile::tempdir().unwrap();
    let data = data.to_str().unwrap();
    // The small model: evaluating the residual network on 10,000 images would take minutes.
    let args = ["--dataset", "cifar10", "--data-dir", data, "--model", "mlp", "--steps", "30", "--seeds", "1"];
    let (out, _) = run(folder.path(), "out", &[&args[..], &["--opt", "sgd:lr=0.01,momentum=0.9"]].concat());
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["model"], &summary["trials"][0]["diverged"]), (&"mlp".into(), &false.into()));
}

#[test]
fn data_of_another_form_or_content_is_said_once_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["--model", "gpt:layers=1,width=16,heads=1,context=8", "--steps", "2", "--seeds", "1", "--opt", "sgd"];
    fs::write(folder.path().join("notes.txt"), format!("\u{feff}{}", "a line\r\n".repeat(200))).unwrap();
    let (_, output) = run(folder.path(), "notes", &[&small[..], &["--text", "notes.txt", "--tune", "2"]].concat());
    let stderr = text(&output.stderr);
    for part in ["byte order mark", "200 times CR and LF"] {
        assert_eq!(stderr.lines().filter(|line| line.contains(part)).count(), 1, "{stderr}");
    }

    let Some(dir) = std::env::var_os("DESCENT_DATA") else {
        println!("skipped: a data set that is not as published (DESCENT_DATA names no folder)");
        return;
    };
    let published = fs::read_to_string(Path::new(&dir).join("tinyshakespeare.txt")).unwrap();
    for (out, content, differs) in
        [("as-published", published.clone(), false), ("other", published.replacen("Before", "before", 1), true)]
    {
        fs::write(folder.path().join("input.txt"), content).unwrap();
        let (out, output) =
            run(folder.path(), out, &[&small[..], &["--dataset", "tinyshakespeare", "--data-dir", "."]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(stderr.contains("`tinyshakespeare.txt` is not what was published"), differs, "{stderr}");
        let workload = &json(&out.join("experiment.json"))["workloads"][0];
        let recorded = differs.then(|| Value::from(vec!["tinyshakespeare.txt"]));
        assert_eq!(workload.get("data_differs"), recorded.as_ref());
        let page = fs::read_to_string(out.join("report.html")).unwrap();
        assert_eq!(page.contains("not what was published"), differs);
    }
}
