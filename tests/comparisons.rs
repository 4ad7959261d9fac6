//! The programs `schedules` and `warmup`, tuning and recipes, as a user runs them.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SCHEDULES: &str = env!("CARGO_BIN_EXE_schedules");
const SHOOTOUT: &str = env!("CARGO_BIN_EXE_shootout");
const WARMUP: &str = env!("CARGO_BIN_EXE_warmup");

fn program(program: &str, folder: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(folder).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs with `args` into the new folder OUT inside `folder`, which must succeed.
fn run(name: &str, folder: &Path, out: &str, args: &[&str]) -> PathBuf {
    let output = program(name, folder, &[args, &["--out", out]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    folder.join(out)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap()
}

fn trial(out: &Path, trial: &Value) -> (Value, Vec<Value>) {
    let folder = out.join("trials").join(trial["id"].as_str().unwrap());
    let lines = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    (json(&folder.join("trial.json")), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn schedules_differ_in_their_learning_rates_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = run(SCHEDULES, folder.path(), "out", &["--steps", "30", "--seeds", "1", "--opt", "adamw:lr=0.01"]);
    let summary = json(&out.join("summary.json"));
    let names: Vec<&str> = list(&summary, "groups").iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["constant", "step", "cosine", "warmup_cosine"]);
    let mut first_losses = Vec::new();
    for (summary, expected) in list(&summary, "trials").iter().zip([0.01, 0.01, 0.01, 0.01 / 3.0]) {
        let (record, lines) = trial(&out, summary);
        assert_eq!(record["config"]["optimizer"], "adamw:lr=0.01,beta1=0.9,beta2=0.999,eps=1e-8,weight_decay=0.01");
        assert_eq!(lines[0]["kind"], "train");
        assert!((lines[0]["lr"].as_f64().unwrap() - expected).abs() < 1e-15, "{}", lines[0]);
        first_losses.push(lines[0]["loss"].clone());
    }
    assert!(first_losses.windows(2).all(|pair| pair[0] == pair[1]), "the same model and batch: {first_losses:?}");
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("warmup_cosine"));
}

#[test]
fn warmup_watches_every_step_of_a_transformer() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["--model", "gpt:layers=2,heads=2,width=16,context=16", "--steps", "20", "--seeds", "1", "--lr", "1e-3,1e-2"];
    let out = run(WARMUP, folder.path(), "out", &[&args[..], &["--norm", "both"]].concat());
    let summary = json(&out.join("summary.json"));
    assert_eq!(list(&summary, "groups").len(), 2 * 2 * 2);
    let groups = json(&out.join("experiment.json"))["groups"].clone();
    for (group, summary) in groups.as_array().unwrap().iter().zip(list(&summary, "trials")) {
        let (record, lines) = trial(&out, summary);
        let factor = |name: &str| group["factors"][name].as_str().unwrap();
        assert!(record["config"]["model"].as_str().unwrap().contains(&format!("norm={}", factor("norm"))));
        assert!(record["config"]["optimizer"].as_str().unwrap().contains(&format!("lr={},", factor("peak"))));
        let peak: f64 = factor("peak").parse().unwrap();
        let kinds = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
        assert_eq!((kinds("train").count(), kinds("probe").count()), (20, 20));
        // The warmup is a tenth of the run: 2 updates.
        let first = kinds("train").next().unwrap()["lr"].as_f64().unwrap();
        let expected = if factor("warmup") == "yes" { peak / 2.0 } else { peak };
        assert!((first / expected - 1.0).abs() < 0.02, "{group}: {first}");
        for (i, (train, probe)) in kinds("train").zip(kinds("probe")).enumerate() {
            assert_eq!(train["step"], probe["step"]);
            // The cosine ends at 0, so that the last update does not move.
            assert_eq!(probe["update_angle"].is_null(), i == 0 || i == 19);
            assert_eq!(probe["update_ratio"].as_f64().unwrap() > 0.0, i < 19);
            let layers = list(probe, "layers");
            let squares: f64 =
                layers.iter().filter_map(|layer| layer["grad_norm"].as_f64()).map(|norm| norm * norm).sum();
            let norm = train["grad_norm"].as_f64().unwrap();
            assert!((squares.sqrt() / norm - 1.0).abs() < 1e-5, "layers make up the whole");
            let blocks: Vec<&Value> = layers.iter().filter(|layer| layer["attention_logit_max"].is_number()).collect();
            assert_eq!(blocks.len(), 2);
            assert!(blocks.iter().all(|block| block["activation_max"].as_f64().unwrap() > 0.0));
        }
    }
    // The entropy is a floor.
    let floor = json(&out.join("experiment.json"))["workloads"][0]["floor"].as_f64().unwrap();
    for summary in list(&summary, "trials") {
        assert!(summary["best_loss"].as_f64().unwrap() > floor);
    }
}

#[test]
fn tuning_keeps_its_trials_apart_and_takes_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--steps",
        "40",
        "--seeds",
        "2",
        "--tune",
        "3",
        "--opt",
        "sgd:momentum=0.9",
        "--opt",
        "adam:weight_decay=0.01",
    ];
    let out = run(SHOOTOUT, folder.path(), "out", &[&args[..], &["--space", "sgd:lr=1e-2..1e-1"]].concat());
    let summary = json(&out.join("summary.json"));
    assert_eq!((list(&summary, "trials").len(), list(&summary, "tuning").len()), (4, 6));
    for (group, name) in list(&summary, "groups").iter().zip(["sgd:momentum=0.9", "adam:weight_decay=0.01"]) {
        assert_eq!(group["name"], name);
        let own = |key: &str| -> Vec<Value> {
            list(&summary, key).iter().filter(|trial| trial["group"] == group["name"]).cloned().collect()
        };
        let tuning: Vec<(Value, Value)> = own("tuning").into_iter().map(|s| (trial(&out, &s).0, s)).collect();
        let finals: Vec<Value> = own("trials").iter().map(|s| trial(&out, s).0).collect();
        let seeds: Vec<&Value> = finals.iter().map(|record| &record["config"]["seed"]).collect();
        assert!(tuning.iter().all(|(record, _)| !seeds.contains(&&record["config"]["seed"])));
        assert!(tuning.iter().all(|(record, _)| record["config"]["phase"] == "tune"));
        let best = tuning
            .iter()
            .min_by(|a, b| a.1["final_loss"].as_f64().unwrap().total_cmp(&b.1["final_loss"].as_f64().unwrap()));
        let best = &best.unwrap().0["config"]["optimizer"];
        assert!(
            finals.iter().all(|record| record["config"]["optimizer"] == *best && record["config"]["phase"] == "final")
        );
        let lrs: Vec<f64> = tuning
            .iter()
            .map(|(record, _)| {
                let text = record["config"]["optimizer"].as_str().unwrap();
                text.split("lr=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()
            })
            .collect();
        let (low, high, space): (f64, f64, _) = match name.starts_with("adam") {
            true => (1e-5, 1e-1, "lr=1e-5..0.1"),
            false => (1e-2, 1e-1, "lr=0.01..0.1"),
        };
        assert!(lrs.iter().all(|lr| (low..=high).contains(lr)), "{lrs:?}");
        // What was given is not overwritten, in any trial.
        let given = name.split(':').nth(1).unwrap();
        for record in tuning.iter().map(|(record, _)| record).chain(&finals) {
            let optimizer = record["config"]["optimizer"].as_str().unwrap();
            assert!(optimizer.split([':', ',']).any(|pair| pair == given), "{optimizer} lacks {given}");
        }
        // An edge is told where results are kept, not on the screen alone.
        let picked: f64 = group["hyperparameters"]["lr"].as_f64().unwrap();
        let share = (picked / low).ln() / (high / low).ln();
        let at_edge: &[&str] = if (0.05..0.95).contains(&share) { &[] } else { &["lr"] };
        assert_eq!(group["searched"], serde_json::json!({"space": space, "at_edge": at_edge}));
    }
}

#[test]
fn what_tuning_picks_at_an_edge_is_told_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    // The best rate is far above all that is searched, and the sequence's first points are not all in the middle.
    let args = ["--steps", "20", "--seeds", "1", "--tune", "24", "--opt", "sgd", "--space", "sgd:lr=1e-6..1e-4"];
    let output = program(SHOOTOUT, folder.path(), &[&args[..], &["--out", "out"]].concat());
    assert!(output.status.success());
    let out = folder.path().join("out");
    let searched = &json(&out.join("summary.json"))["groups"][0]["searched"];
    assert_eq!(searched["at_edge"], serde_json::json!(["lr"]), "{searched}");
    let warning = "lr is at the edge of what was searched (lr=1e-6..1e-4)";
    for (place, text) in [
        ("progress", text(&output.stderr).to_owned()),
        ("table", text(&output.stdout).to_owned()),
        ("log", fs::read_to_string(out.join("log.txt")).unwrap()),
        ("page", fs::read_to_string(out.join("report.html")).unwrap()),
    ] {
        assert!(text.contains(warning), "{place}: {text}");
    }
}

#[test]
fn defaults_leave_tuning_its_choice() {
    let folder = tempfile::tempdir().unwrap();
    for program in [SHOOTOUT, SCHEDULES] {
        let name = Path::new(program).file_stem().unwrap().to_str().unwrap();
        let out = run(program, folder.path(), name, &["--steps", "3", "--seeds", "1", "--tune", "2"]);
        for group in list(&json(&out.join("summary.json")), "groups") {
            assert!(group["searched"]["space"].as_str().unwrap().starts_with("lr="), "{group}");
        }
    }
}

#[test]
fn several_data_sets_and_models_are_compared_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--model", "mlp", "--model", "cnn", "--steps", "10", "--seeds", "1", "--opt", "adam", "--opt", "lion"];
    let out = run(SHOOTOUT, folder.path(), "out", &args);
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["dataset"], &summary["model"]), (&"digits".into(), &"mlp, cnn".into()));
    let names: Vec<&str> = list(&summary, "groups").iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["adam, mlp", "lion, mlp", "adam, cnn", "lion, cnn"]);
    assert_eq!(list(&json(&out.join("experiment.json")), "workloads").len(), 2);
}

#[test]
fn a_recipe_is_an_optimizer_a_schedule_and_a_length() {
    let folder = tempfile::tempdir().unwrap();
    for (args, schedule) in [
        (&["--recipe", "llm", "--steps", "50"][..], "warmup_cosine:lr=0.0003,warmup=2000,min_lr=0,steps=100000"),
        (&["--recipe", "llm", "--steps", "50", "--scale-recipe"], "warmup_cosine:lr=0.0003,warmup=1,min_lr=0,steps=50"),
        // 44 updates an epoch, 300 epochs.
        (&["--recipe", "vision", "--steps", "3"], "cosine:lr=0.0001,min_lr=0,steps=13200"),
    ] {
        let name = schedule.split(':').next().unwrap().to_owned() + &args.len().to_string();
        let args = [args, &["--seeds", "1", "--out", &name]].concat();
        let output = program(SHOOTOUT, folder.path(), &args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        // A part of a recipe is not what it is known for.
        assert_eq!(text(&output.stderr).contains("is meant for"), !args.contains(&"--scale-recipe"), "{args:?}");
        let out = folder.path().join(&name);
        let group = &json(&out.join("summary.json"))["groups"][0];
        assert_eq!((&group["schedule"], &group["optimizer"]), (&schedule.into(), &"adamw".into()));
    }
}

#[test]
fn what_is_told_and_not_used_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (out, args, part) in [
        (
            "a",
            &["--opt", "sgd:lr=0.5", "--schedule", "cosine:lr=0.1"][..],
            "`cosine:lr=0.1` fixes the learning rate: that of `sgd:lr=0.5` is not used",
        ),
        ("b", &["--opt", "sgd", "--data-dir", "somewhere"], "--data-dir is not read"),
        ("c", &["--opt", "sgd", "--schedule", "cosine:lr=0.1"], ""),
    ] {
        let args = [args, &["--steps", "1", "--seeds", "1", "--out", out]].concat();
        let output = program(SHOOTOUT, folder.path(), &args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let warnings: Vec<&str> = text(&output.stderr).lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), usize::from(!part.is_empty()), "{warnings:?}");
        assert!(warnings.iter().all(|line| line.contains(part)), "{warnings:?}");
        let log = fs::read_to_string(folder.path().join(out).join("log.txt")).unwrap();
        assert_eq!(log.contains("WARN"), !part.is_empty());
    }
}

#[test]
fn a_text_file_is_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("abc.txt"), "abcdefgh".repeat(400)).unwrap();
    let model = "gpt:layers=1,heads=2,width=16,context=8";
    let args = ["--text", "abc.txt", "--model", model, "--steps", "150", "--seeds", "1", "--opt", "adamw:lr=1e-2"];
    let out = run(SHOOTOUT, folder.path(), "out", &args);
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["dataset"], "text");
    assert!(summary["trials"][0]["final_accuracy"].as_f64().unwrap() > 0.95, "{summary}");
}

#[test]
fn wrong_input_is_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.toml"), "optimizer = [\"adam\"]\n").unwrap();
    fs::write(folder.path().join("latin.txt"), [b'a', 0xff]).unwrap();
    fs::write(folder.path().join("scale.toml"), "scale_recipe = true\n").unwrap();
    fs::write(folder.path().join("inf.toml"), "max_loss = inf\n").unwrap();
    // A tenth of it has room for a window of 16, and a tenth of the rest has not.
    fs::write(folder.path().join("short.txt"), "abcdefghij".repeat(17)).unwrap();
    for (name, args, parts) in [
        (SHOOTOUT, &["--lr", "0.1"][..], &["`--lr`", "shootout"][..]),
        (WARMUP, &["--tune", "3"], &["`--tune`", "warmup"]),
        (WARMUP, &["--lr", "0"], &["--lr 0"]),
        (WARMUP, &["--norm", "middle"], &["middle", "pre, post, both"]),
        (WARMUP, &["--opt", "sam"], &["sam"]),
        (WARMUP, &["--opt", "adamw:lr=1e-3"], &["adamw:lr=1e-3", "--lr"]),
        (WARMUP, &["--schedule", "warmup_cosine:lr=1e-3"], &["warmup_cosine:lr=1e-3", "--lr", "leave `lr` out"]),
        (WARMUP, &["--model", "gpt:norm=post", "--norm", "pre"], &["--norm pre", "gpt:norm=post"]),
        (WARMUP, &["--model", "gpt:context=16384", "--batch-size", "1"], &["context=16384", "GB"]),
        (WARMUP, &["--model", "gpt:width=16384,layers=96"], &["width=16384", "GB"]),
        (WARMUP, &["--schedule", "cosine"], &["cosine", "warmup"]),
        (WARMUP, &["--model", "gpt:width=65"], &["width", "65"]),
        (WARMUP, &["--model", "gpt:layer=2"], &["`layer`", "did you mean `layers`?"]),
        (WARMUP, &["--model", "mlp"], &["mlp", "language"]),
        (SHOOTOUT, &["--model", "gpt"], &["gpt", "digits"]),
        (SHOOTOUT, &["--schedule", "cosine", "--schedule", "step"], &["schedules"]),
        (SHOOTOUT, &["--recipe", "visoin"], &["`visoin`", "did you mean `vision`?"]),
        (SHOOTOUT, &["--recipe", "llm", "--opt", "adam"], &["--recipe", "--opt"]),
        (SHOOTOUT, &["--tune", "2", "--schedule", "cosine:lr=1"], &["cosine:lr=1", "--tune"]),
        (SHOOTOUT, &["--space", "adam:lr=1..2"], &["--space", "--tune"]),
        (SHOOTOUT, &["--tune", "2", "--opt", "adam", "--opt", "adam:beta1=0.9"], &["the same once tuned"]),
        (SHOOTOUT, &["--tune", "2", "--opt", "adam", "--opt", "rprop:lr=1"], &["`rprop:lr=1`", "nothing to search"]),
        (SHOOTOUT, &["--tune", "2", "--opt", "sgd", "--space", "sgd:lr=1"], &["`sgd`", "nothing to search"]),
        (SHOOTOUT, &["--tune", "2", "--space", "adamm:lr=1..2"], &["`adamm`", "did you mean `adam`?"]),
        (SHOOTOUT, &["--tune", "70000"], &["--tune 70000", "65536"]),
        (SHOOTOUT, &["--tune", "60000"], &["--seeds 3 and --tune 60000", "3 groups", "100000"]),
        (SHOOTOUT, &["--tune", "2", "--space", "lion:lr=1e-4..1e-3"], &["--space lion", "`lion`", "sgd, adam, adamw"]),
        (
            SHOOTOUT,
            &["--tune", "2", "--space", "adam:lr=1..2", "--space", "adam:lr=1..3"],
            &["`adam` has a space already"],
        ),
        (SHOOTOUT, &["--tune", "2", "--space", "adam:lr=1..2,lr=1..3"], &["`lr` is given twice"]),
        (SHOOTOUT, &["--text", "short.txt", "--dataset", "digits"], &["--text ", "short.txt: ", "--dataset digits"]),
        (WARMUP, &["--recipe", "llm", "--scale-recipe"], &["--recipe llm", "peaks"]),
        (WARMUP, &["--opt", "adamw:lr=1e-3"], &["adamw:lr=1e-3", "--lr"]),
        (SHOOTOUT, &["--config", "scale.toml"], &["--scale-recipe", "--recipe"]),
        (SHOOTOUT, &["--config", "inf.toml"], &["inf.toml", "--max-loss inf", "finite"]),
        (
            SHOOTOUT,
            &[
                "--text",
                "short.txt",
                "--model",
                "gpt:layers=1,heads=1,width=4,context=16",
                "--tune",
                "2",
                "--batch-size",
                "1",
            ],
            &["context = 16", "too large"],
        ),
        (SHOOTOUT, &["--clip", "-1"], &["--clip -1"]),
        (SHOOTOUT, &["--ema", "1"], &["--ema 1", "[0, 1)"]),
        (SHOOTOUT, &["--ema", "0.9", "--opt", "schedule_free_sgd"], &["--ema 0.9", "`schedule_free_sgd`", "itself"]),
        (SHOOTOUT, &["--lookahead", "5", "--opt", "lbfgs"], &["--lookahead 5", "`lbfgs`"]),
        (SHOOTOUT, &["--clip", "1", "--opt", "lbfgs"], &["--clip 1", "`lbfgs`"]),
        (SHOOTOUT, &["--opt", "sgd:cautious_decay=true"], &["cautious_decay", "not decoupled"]),
        (SHOOTOUT, &["--tune", "2", "--opt", "sgd", "--space", "sgd:nesterov=0..1"], &["`nesterov` is true or false"]),
        (SHOOTOUT, &["--target-accuracy", "90"], &["--target-accuracy 90", "at most 1"]),
        (SHOOTOUT, &["--dataset", "digits", "--dataset", "digits"], &["`digits`", "twice"]),
        (SHOOTOUT, &["--config", "bad.toml"], &["bad.toml", "`optimizer`"]),
        (SHOOTOUT, &["--text", "latin.txt"], &["latin.txt", "1"]),
        (SHOOTOUT, &["--text", "missing.txt"], &["missing.txt"]),
        (SHOOTOUT, &["--dataset", "tinyshakespeare", "--data-dir", "nowhere"], &["nowhere"]),
    ] {
        let output = program(name, folder.path(), &[args, &["--out", "new"]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{args:?}: {stderr} lacks one of {parts:?}");
        assert!(!folder.path().join("new").exists(), "{args:?} left something");
    }
}
