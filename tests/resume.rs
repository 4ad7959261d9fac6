//! A run that is killed, interrupted or resumed ends with the same bits as one that was left alone.

use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Tuning, two rules, a schedule, clipping and checkpoints.
const ARGS: [&str; 17] = [
    "--model",
    "mlp",
    "--opt",
    "adamw",
    "--opt",
    "lamb",
    "--schedule",
    "warmup_cosine",
    "--steps",
    "1000",
    "--seeds",
    "2",
    "--tune",
    "2",
    "--clip",
    "1",
    "--checkpoint-every=30",
];

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shootout"));
    command.args(args).current_dir(folder).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Path, out: &str) -> Child {
    command(folder, &[&ARGS[..], &["--out", out]].concat()).spawn().unwrap()
}

fn resume(folder: &Path, out: &str) -> Child {
    command(folder, &["--out", out, "--resume"]).spawn().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn ended(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// Everything but times and memory in the summary, and in the trials that it names.
fn results(out: &Path) -> Vec<Value> {
    fn without_measured(mut value: Value) -> Value {
        match &mut value {
            Value::Object(map) => {
                map.remove("seconds");
                map.remove("peak_memory_bytes");
                map.values_mut().for_each(|v| *v = without_measured(v.take()));
            }
            Value::Array(all) => all.iter_mut().for_each(|v| *v = without_measured(v.take())),
            _ => {}
        }
        value
    }
    let json = |path: &Path| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let summary = json(&out.join("summary.json"));
    let ids = ["trials", "tuning"].map(|key| summary[key].as_array().unwrap().clone()).concat();
    let mut results = vec![without_measured(summary)];
    for trial in &ids {
        let folder = out.join("trials").join(trial["id"].as_str().unwrap());
        results.push(without_measured(json(&folder.join("trial.json"))));
        let lines = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        results.extend(lines.lines().map(|line| without_measured(serde_json::from_str(line).unwrap())));
        assert!(!folder.join("checkpoint.safetensors").exists());
    }
    results
}

/// `DESCENT_KILLS` runs are killed; 4 where it is not set.
#[test]
fn killed_at_any_moment_and_resumed_is_the_same_bits() {
    let kills: usize = std::env::var("DESCENT_KILLS").map_or(4, |n| n.parse().expect("DESCENT_KILLS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    ended(start(folder.path(), "whole"));
    let length = began.elapsed();
    let expected = results(&folder.path().join("whole"));
    assert!(expected.len() > 8 * 40, "{} results", expected.len());

    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(kills as u64);
    let mut early = 0;
    for run in 0..kills {
        let out = format!("killed-{run}");
        let mut child = start(folder.path(), &out);
        // Once or several times, at a random moment each.
        for _ in 0..rng.random_range(1..=3) {
            thread::sleep(length.mul_f64(rng.random_range(0.0..0.9)));
            child.kill().unwrap();
            child.wait().unwrap();
            if !folder.path().join(&out).join("experiment.json").exists() {
                early += 1;
                let _ = fs::remove_dir_all(folder.path().join(&out));
                child = start(folder.path(), &out);
            } else {
                child = resume(folder.path(), &out);
            }
        }
        ended(child);
        assert!(results(&folder.path().join(&out)) == expected, "{out} differs");
        println!("run {} of {kills}: the same bits", run + 1);
    }
    println!("{early} of the kills came before the experiment was recorded");
}

#[cfg(unix)]
#[test]
fn interrupted_saves_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    ended(start(folder.path(), "whole"));
    for signal in ["-INT", "-TERM"] {
        let _ = fs::remove_dir_all(&out);
        let child = start(folder.path(), "out");
        // Until a first trial has something to save.
        let trials = out.join("trials");
        let begun =
            || fs::read_dir(&trials).into_iter().flatten().flatten().any(|t| t.path().join("metrics.jsonl").exists());
        while !begun() {
            thread::sleep(Duration::from_millis(5));
        }
        // Nobody else may work there.
        let second = resume(folder.path(), "out").wait_with_output().unwrap();
        assert_eq!(second.status.code(), Some(2), "{}", text(&second.stderr));
        assert!(text(&second.stderr).contains("another process is at work there"), "{}", text(&second.stderr));

        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("interrupted; go on with `shootout --out out --resume`"));
        assert!(!out.join("summary.json").exists());
        ended(resume(folder.path(), "out"));
        assert!(results(&out) == results(&folder.path().join("whole")), "{signal}");
    }

    // A finished run prints its summary again, also when its report has to be made anew.
    let before = fs::read(out.join("summary.json")).unwrap();
    fs::remove_file(out.join("report.html")).unwrap();
    let output = ended(resume(folder.path(), "out"));
    assert!(text(&output.stdout).contains("adamw") && text(&output.stdout).contains("results in out"));
    assert_eq!(fs::read(out.join("summary.json")).unwrap(), before);
    assert!(out.join("report.html").exists());

    // A trial killed between its outcome and the removal of its checkpoint leaves both.
    let leave = |trial: fs::DirEntry| fs::write(trial.path().join("checkpoint.safetensors"), "left").unwrap();
    fs::read_dir(out.join("trials")).unwrap().for_each(|trial| leave(trial.unwrap()));
    fs::remove_file(out.join("summary.json")).unwrap();
    ended(resume(folder.path(), "out"));
    assert!(results(&out) == results(&folder.path().join("whole")));

    // The stored config runs again from there, with the same results.
    let config = out.join("config.toml");
    ended(
        command(folder.path(), &["--config", config.to_str().unwrap(), "--out", "again", "--jobs", "1"])
            .spawn()
            .unwrap(),
    );
    assert!(results(&folder.path().join("again")) == results(&out));
}

#[test]
fn what_cannot_be_resumed_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    ended(command(folder.path(), &["--steps", "1", "--seeds", "1", "--opt", "sgd", "--out", "done"]).spawn().unwrap());
    for (args, part) in [
        (&["--out", "empty", "--resume"][..], "no experiment.json"),
        (&["--out", "none", "--resume"], "no experiment.json"),
        (&["--resume"], "--out"),
        (&["--out", "done", "--resume", "--steps", "9"], "`--steps`: a resumed run has the config in OUT"),
        (&["--out", "done"], "`--resume` goes on"),
        (&["--config", "nowhere.toml"], "nowhere.toml"),
    ] {
        let output = command(folder.path(), args).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
        assert!(!folder.path().join("none").exists());
    }
}
