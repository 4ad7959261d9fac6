//! A run that is killed, interrupted or resumed ends with the same bits as one that was left alone.

use experiments::{Targets, record::Run, report};
use flate2::{Compression, write::GzEncoder};
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
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

/// The program as a terminal starts it. What runs this test may ignore signals, as a shell has its jobs in the background do, and
/// what is ignored at a program's start stays so.
fn program() -> Command {
    let program = env!("CARGO_BIN_EXE_shootout");
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut env = Command::new("env");
    env.args(["--default-signal=INT,TERM,HUP", program]);
    env
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = program();
    command.args(args).current_dir(folder).env_remove("RUST_LOG");
    command.env_remove("CANDLE_BARRIER_POOL_SPIN_LIMIT");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Path, out: &str) -> Child {
    command(folder, &[&ARGS[..], &["--out", out]].concat()).spawn().unwrap()
}

fn resume(folder: &Path, out: &str) -> Child {
    command(folder, &["--out", out, "--resume"]).spawn().unwrap()
}

#[cfg(unix)]
fn kill(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `is_so`, for a minute at most.
fn wait_for(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
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
                // The checksums are over times too.
                for key in ["seconds", "peak_memory_bytes", "checksum", "metrics_sha256"] {
                    map.remove(key);
                }
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

/// `ARGS` with trials that are tuned by successive halving.
fn with_halving() -> Vec<&'static str> {
    let at = ARGS.iter().position(|arg| *arg == "--tune").unwrap();
    [&ARGS[..at], &["--tune-steps", "3000"], &ARGS[at + 2..]].concat()
}

/// `DESCENT_KILLS` runs are killed; 4 where it is not set.
#[test]
fn killed_at_any_moment_and_resumed_is_the_same_bits() {
    killed_and_resumed(&ARGS);
}

/// As many.
#[test]
fn a_search_that_stops_trials_is_the_same_bits_too() {
    killed_and_resumed(&with_halving());
}

fn killed_and_resumed(args: &[&str]) {
    let start = |folder: &Path, out: &str| command(folder, &[args, &["--out", out]].concat()).spawn().unwrap();
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
                // The same command takes the folder, whatever the kill left there.
                early += 1;
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
    for signal in ["-INT", "-TERM", "-HUP"] {
        let _ = fs::remove_dir_all(&out);
        let child = start(folder.path(), "out");
        // Until a first trial has something to save.
        let trials = out.join("trials");
        let begun =
            || fs::read_dir(&trials).into_iter().flatten().flatten().any(|t| t.path().join("metrics.jsonl").exists());
        while !begun() {
            thread::sleep(Duration::from_millis(5));
        }
        // It waits, so that it has not ended before the signal comes.
        kill("-STOP", &child);
        // Nobody else may work there.
        let second = resume(folder.path(), "out").wait_with_output().unwrap();
        assert_eq!(second.status.code(), Some(2), "{}", text(&second.stderr));
        assert!(text(&second.stderr).contains("another process is at work there"), "{}", text(&second.stderr));

        // Set for speed, though this test's own environment may not be.
        #[cfg(target_os = "linux")]
        {
            let environment = fs::read(format!("/proc/{}/environ", child.id())).unwrap();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            for variable in ["CANDLE_BARRIER_POOL_SPIN_LIMIT=50\0", "_RJEM_MALLOC_CONF=thp:always,"] {
                assert!(environment.contains(variable), "{environment}");
            }
        }
        kill(signal, &child);
        kill("-CONT", &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("interrupted; go on with `shootout --out out --resume`"));
        assert!(!out.join("summary.json").exists());
        assert!(fs::read_to_string(out.join("log.txt")).unwrap().contains("interrupted"));
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
    // What a program wrote that took an infinite number.
    fs::create_dir(folder.path().join("lost")).unwrap();
    let record = without_checksum(&folder.path().join("done/experiment.json"));
    let lost = record.replace("\"max_loss\":1000.0", "\"max_loss\":null");
    assert_ne!(lost, record);
    fs::write(folder.path().join("lost/experiment.json"), lost).unwrap();
    fs::create_dir(folder.path().join("blocked")).unwrap();
    fs::write(folder.path().join("blocked/experiment.json"), record).unwrap();
    fs::write(folder.path().join("blocked/trials"), "").unwrap();
    fs::create_dir(folder.path().join("damaged")).unwrap();
    fs::copy(folder.path().join("done/experiment.json"), folder.path().join("damaged/experiment.json")).unwrap();
    fs::write(folder.path().join("damaged/summary.json"), "{").unwrap();
    for (args, part) in [
        (&["--out", "empty", "--resume"][..], "no experiment.json"),
        (&["--out", "none", "--resume"], "no experiment.json"),
        (&["--resume"], "--out"),
        (&["--out", "done", "--resume", "--steps", "9"], "`--steps`: a resumed run has the config in OUT"),
        (&["--out", "done"], "`--resume` goes on"),
        (&["--out", "lost", "--resume"], "`max_loss` was a number that JSON does not have"),
        (&["--out", "blocked", "--resume"], "blocked/trials` is a file"),
        (&["--out", "damaged", "--resume"], "cannot read `damaged/summary.json`"),
        (&["--out", "done", "--resume", "--text", "x"], "--text"),
        (&["--config", "nowhere.toml"], "nowhere.toml"),
    ] {
        let output = command(folder.path(), args).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
        assert!(!folder.path().join("none").exists());
    }
}

/// The files below `folder` whose names are in `names`, by their path from there.
fn files(folder: &Path, names: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if names.is_empty() || names.contains(&path.file_name().unwrap().to_str().unwrap()) {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What may become of a file: it is emptied, cut anywhere, a bit, a byte or a digit changes anywhere.
fn damages(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    const REGIONS: usize = 60;
    let mut damages = vec![("emptied".to_owned(), Vec::new())];
    for region in 0..REGIONS {
        let at = whole.len() * region / REGIONS;
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        damages.push((format!("bit {} of byte {at} flipped", at % 8), flipped));
        damages.push((format!("byte {at} dropped"), [&whole[..at], &whole[at + 1..]].concat()));
        if region > 0 {
            damages.push((format!("cut to {at} bytes"), whole[..at].to_vec()));
        }
        if let Some(digit) = whole[at..].iter().position(u8::is_ascii_digit) {
            let mut changed = whole.to_vec();
            changed[at + digit] = b'0' + (changed[at + digit] - b'0' + 1) % 10;
            damages.push((format!("digit {} changed", at + digit), changed));
        }
    }
    damages
}

/// What a report is made from, as text, in which NaN equals NaN and numbers are the same only if their bits are.
fn read(out: &Path) -> Result<String, String> {
    let run = Run::read(out).map_err(|error| format!("{error:#}"))?;
    report::html(std::slice::from_ref(&run), &Targets::default(), None).map_err(|error| format!("{error:#}"))?;
    Ok(format!("{run:?}"))
}

#[test]
fn a_record_that_was_damaged_anywhere_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let args = "--opt adamw --opt sgd --space sgd:lr=1e20..1e30 --steps 60 --seeds 2 --tune 2 --out out";
    ended(command(folder.path(), &args.split(' ').collect::<Vec<_>>()).spawn().unwrap());
    let expected = read(&out).unwrap();
    let records = files(&out, &["experiment.json", "summary.json", "trial.json", "metrics.jsonl"]);
    assert!(records.len() >= 2 + 2 * 8, "{} records", records.len());
    let mut refused = 0;
    let mut check = |path: &Path, how: &str, bytes: &[u8]| {
        fs::write(out.join(path), bytes).unwrap();
        match read(&out) {
            // As where a space or the checksum's own name changed: it says the same.
            Ok(found) => assert!(found == expected, "{}: {how}", path.display()),
            Err(error) => {
                refused += 1;
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(error.contains(name) && !error.contains('\n'), "{}, {how}: {error}", path.display());
            }
        }
        fs::write(out.join(path), &records[path]).unwrap();
    };
    let mut tried = 0;
    for (path, whole) in &records {
        for (how, bytes) in damages(whole) {
            tried += 1;
            check(path, &how, &bytes);
        }
        let twins = records.iter().filter(|(other, bytes)| other.file_name() == path.file_name() && *bytes != whole);
        for (other, bytes) in twins {
            tried += 1;
            check(path, &format!("that of {}", other.display()), bytes);
        }
    }
    println!("{tried} damages, {refused} of them refused");
    assert!(refused * 100 >= tried * 95, "{refused} of {tried}");
    assert!(read(&out).unwrap() == expected);
}

/// As programs wrote records before there were checksums, and as kept runs have them.
#[test]
fn records_without_checksums_and_packed_measurements_are_held_against_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    ended(
        command(folder.path(), &["--steps", "60", "--seeds", "2", "--opt", "adamw", "--out", "out"]).spawn().unwrap(),
    );
    let expected = read(&out).unwrap();
    for (path, bytes) in files(&out, &["experiment.json", "summary.json", "trial.json", "metrics.jsonl"]) {
        let path = out.join(path);
        if path.ends_with("metrics.jsonl") {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&bytes).unwrap();
            fs::write(path.with_extension("jsonl.gz"), packed.finish().unwrap()).unwrap();
            fs::remove_file(path).unwrap();
        } else {
            let mut record: Value = serde_json::from_slice(&bytes).unwrap();
            for key in ["checksum", "metrics_sha256"] {
                record.as_object_mut().unwrap().remove(key);
            }
            fs::write(path, record.to_string()).unwrap();
        }
    }
    let without_sha256 = |run: &str| {
        let parts =
            run.split("metrics_sha256: ").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest).to_owned());
        parts.collect::<Vec<_>>().concat()
    };
    let old = read(&out).unwrap();
    assert!(
        without_sha256(&old.replace("metrics_sha256: None", "metrics_sha256: Some()")) == without_sha256(&expected)
    );

    let trials: Vec<PathBuf> =
        files(&out, &["trial.json"]).into_keys().map(|path| path.parent().unwrap().to_owned()).collect();
    let [one, other] = [0, 1].map(|i| trials[i].display().to_string());
    let set = |path: &str, pointer: &str, value: Value| {
        let mut record: Value = serde_json::from_slice(&fs::read(out.join(path)).unwrap()).unwrap();
        *record.pointer_mut(pointer).unwrap_or_else(|| panic!("{path} has {pointer}")) = value;
        (path.to_owned(), record.to_string().into_bytes())
    };
    let packed = |path: &str, text: &str| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        (path.to_owned(), packed.finish().unwrap())
    };
    let (trial, metrics) = (format!("{one}/trial.json"), format!("{one}/metrics.jsonl.gz"));
    let taken = |path: &str, from: &str| (path.to_owned(), fs::read(out.join(from)).unwrap());
    let rows: Vec<((String, Vec<u8>), &str)> = vec![
        (taken(&trial, &format!("{other}/trial.json")), "trial.json`: it is of the trial `adamw-seed"),
        (taken(&metrics, &format!("{other}/metrics.jsonl.gz")), "metrics.jsonl` and `"),
        (set(&trial, "/config/batch_size", 16.into()), "trial.json`: its config is not that of `adamw-seed"),
        (set(&trial, "/config/optimizer", "sgd:lr=1".into()), "trial.json`: its config is not that of"),
        (set(&trial, "/outcome/final_loss", 0.001.into()), "disagree: final_loss is"),
        (set(&trial, "/outcome/best_accuracy", 1.0.into()), "disagree: best_accuracy is"),
        (set(&trial, "/outcome/steps", 59.into()), "disagree: steps is 60 and 59"),
        (set(&trial, "/outcome/seconds", 1e-3.into()), "disagree: seconds is"),
        (set(&trial, "/outcome/diverged", true.into()), "disagree: final_loss is"),
        (set(&trial, "/outcome", Value::Null), "trial.json`: it has no outcome"),
        (set(&trial, "/group", "sgd".into()), "disagree: group is \"adamw\" and \"sgd\""),
        (packed(&metrics, ""), "metrics.jsonl`: it is empty, and `trial.json` knows of 60 updates"),
        (
            packed(
                &metrics,
                "{\"kind\":\"eval\",\"step\":9,\"loss\":1,\"accuracy\":1,\"seconds\":0}\n".repeat(2).as_str(),
            ),
            "metrics.jsonl`: step 9 comes after step 9",
        ),
        ((metrics.clone(), fs::read(out.join(&metrics)).unwrap()[..99].to_vec()), "metrics.jsonl.gz`: "),
        (set("summary.json", "/trials/0/final_loss", 0.001.into()), "summary.json` and `"),
        (set("summary.json", "/trials/1/seed", 7.into()), "disagree: seed is 7 and 1"),
        (set("summary.json", "/trials/1/id", trials[0].file_name().unwrap().to_str().into()), "twice"),
        (
            set("summary.json", "/trials", Value::Array(vec![])),
            "has 2 trials, 0 of them diverged, and its trials are 0, 0",
        ),
        (set("summary.json", "/groups/0/n", 3.into()), "group `adamw` has 3 trials"),
        (
            set("summary.json", "/groups/0/loss/mean", 0.001.into()),
            "group `adamw` has the mean loss 0.001, and its trials",
        ),
        (set("summary.json", "/groups/0/hyperparameters/lr", 0.5.into()), "disagree: lr is 0.5 and 0.001"),
        (set("summary.json", "/groups/0/schedule", "constant".into()), "disagree: schedule is `constant` and"),
        (set("summary.json", "/experiment", "warmup".into()), "disagree: experiment is \"warmup\" and \"shootout\""),
        (set("experiment.json", "/seeds", vec![0].into()), "experiment.json`: it has no seed 1 of trial"),
        (set("experiment.json", "/groups/0/name", "sgd".into()), "experiment.json`: it has no group `adamw`"),
        (set("experiment.json", "/workloads/0/steps", 90.into()), "disagree: steps is 90 and 60"),
    ];
    for ((path, bytes), part) in rows {
        let kept = fs::read(out.join(&path)).unwrap();
        fs::write(out.join(&path), bytes).unwrap();
        let error = read(&out).expect_err(part);
        assert!(error.contains(part) && !error.contains('\n'), "{path}: {error}\nshould have: {part}");
        fs::write(out.join(&path), kept).unwrap();
    }
    // An interval is not believed, but computed.
    let (path, bytes) = set("summary.json", "/groups/0/loss/ci95", vec![0.0, 9.0].into());
    fs::write(out.join(path), bytes).unwrap();
    assert!(read(&out).unwrap() == old);
}

/// The runs that are kept in the repository.
#[test]
fn kept_runs_can_be_reported_on() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let mut runs = 0;
    for entry in fs::read_dir(results).unwrap() {
        let out = entry.unwrap().path();
        if out.is_dir() {
            read(&out).unwrap();
            runs += 1;
        }
    }
    assert!(runs >= 4);
}

/// How many records an event file of TensorBoard has.
fn events(bytes: &[u8]) -> usize {
    let (mut rest, mut count) = (bytes, 0);
    while let Some((length, _)) = rest.split_first_chunk::<8>() {
        rest = &rest[12 + u64::from_le_bytes(*length) as usize + 4..];
        count += 1;
    }
    count
}

/// Every file of a run that was interrupted, in every way in which it may be left.
#[cfg(unix)]
#[test]
fn a_file_that_is_half_written_is_no_panic_and_never_another_result() {
    const ARGS: [&str; 11] =
        ["--model", "mlp", "--opt", "adamw", "--steps", "3000", "--seeds", "2", "--jobs", "1", "--checkpoint-every=50"];
    let folder = tempfile::tempdir().unwrap();
    ended(command(folder.path(), &[&ARGS[..], &["--out", "whole"]].concat()).spawn().unwrap());
    let expected = results(&folder.path().join("whole"));
    // Stopped in the midst of the second trial, so that there is one that ended.
    let out = folder.path().join("out");
    let mut child = command(folder.path(), &[&ARGS[..], &["--out", "out"]].concat()).spawn().unwrap();
    let is_begun = || {
        let checkpoints = files(&out, &["checkpoint.safetensors"]);
        files(&out, &["trial.json"]).len() == 2 && checkpoints.len() == 1
    };
    while !(out.join("trials").exists() && is_begun()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let left = files(&out, &[]);
    let names: Vec<&str> = left.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for name in
        ["experiment.json", "config.toml", "trial.json", "metrics.jsonl", "checkpoint.safetensors", "log.txt", "lock"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    // TensorBoard's files are there, and have all that was measured.
    let shown: Vec<&PathBuf> = left.keys().filter(|path| path.starts_with("tensorboard")).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    for path in shown {
        let id = path.parent().unwrap().file_name().unwrap();
        let lines =
            left[&Path::new("trials").join(id).join("metrics.jsonl")].iter().filter(|byte| **byte == b'\n').count();
        let has_ended = !left.contains_key(&Path::new("trials").join(id).join("checkpoint.safetensors"));
        assert_eq!(events(&left[path]), 2 + lines + usize::from(has_ended), "{}", path.display());
    }

    let restore = || {
        let _ = fs::remove_dir_all(&out);
        for (path, bytes) in &left {
            fs::create_dir_all(out.join(path).parent().unwrap()).unwrap();
            fs::write(out.join(path), bytes).unwrap();
        }
    };
    let (mut refused, mut went_on) = (0, 0);
    for (path, bytes) in &left {
        let mut digit = bytes.clone();
        if let Some(at) = bytes.iter().skip(bytes.len() / 2).position(u8::is_ascii_digit) {
            let at = bytes.len() / 2 + at;
            digit[at] = b'0' + (digit[at] - b'0' + 1) % 10;
        }
        for (how, content) in [
            ("another digit", Some(digit)),
            ("emptied", Some(vec![])),
            ("half", Some(bytes[..bytes.len() / 2].to_vec())),
            ("without its last byte", Some(bytes[..bytes.len().saturating_sub(1)].to_vec())),
            ("other bytes", Some(vec![0xff; 300])),
            ("a folder", None),
        ] {
            restore();
            let place = out.join(path);
            fs::remove_file(&place).unwrap();
            match content {
                Some(content) => fs::write(&place, content).unwrap(),
                None => fs::create_dir(&place).unwrap(),
            }
            let output = resume(folder.path(), "out").wait_with_output().unwrap();
            let (what, stderr) = (format!("{}, {how}", path.display()), text(&output.stderr));
            assert!(!stderr.contains("panicked"), "{what}: {stderr}");
            if output.status.success() {
                assert!(results(&out) == expected, "{what}");
                went_on += 1;
            } else {
                assert!(matches!(output.status.code(), Some(1 | 2)), "{what}: {:?}", output.status);
                let line = stderr.lines().last().unwrap_or_default();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(line.starts_with("error: ") && line.contains(name), "{what}: {stderr}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {went_on} went on to the same bits");
    assert!(refused >= 20 && went_on >= 10, "{refused}, {went_on}");

    // What went on has each line once: three records more in a first file, and two in that of a trial that was resumed.
    restore();
    ended(resume(folder.path(), "out"));
    let ended = files(&out, &[]);
    for id in fs::read_dir(out.join("trials")).unwrap().map(|trial| trial.unwrap().file_name()) {
        let own = ended.iter().filter(|(path, _)| path.starts_with(Path::new("tensorboard").join(&id)));
        let (count, files) = own.fold((0, 0), |(count, files), (_, bytes)| (count + events(bytes), files + 1));
        let lines =
            ended[&Path::new("trials").join(&id).join("metrics.jsonl")].iter().filter(|byte| **byte == b'\n').count();
        let is_resumed = left.contains_key(&Path::new("trials").join(&id).join("checkpoint.safetensors"));
        assert_eq!(files, 1 + usize::from(is_resumed));
        assert_eq!(count, 3 + lines + 2 * usize::from(is_resumed));
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_ends_before_it_began_can_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (out, text_file) = (folder.path().join("out"), folder.path().join("text"));
    let args =
        ["--text", "text", "--model", "gpt:layers=1,width=8,context=8", "--steps", "2", "--seeds", "1", "--opt", "sgd"];
    let begin = || command(folder.path(), &[&args[..], &["--out", "out"]].concat()).spawn().unwrap();
    // A pipe that nobody writes to yet is a file that takes long to read.
    assert!(Command::new("mkfifo").arg(&text_file).status().unwrap().success());
    let child = begin();
    wait_for(|| out.join("lock").exists());
    // The pipe is opened after the lock is taken.
    thread::sleep(Duration::from_millis(200));
    kill("-INT", &child);
    thread::sleep(Duration::from_millis(100));
    // For reading too, so that this waits for nobody, should the program have ended already.
    let mut pipe = fs::File::options().read(true).write(true).open(&text_file).unwrap();
    pipe.write_all("abcdefgh".repeat(400).as_bytes()).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(text(&output.stderr), "interrupted before the run began\n");
    assert!(!out.exists());

    // What takes for ever is given up.
    let child = begin();
    wait_for(|| out.join("lock").exists());
    thread::sleep(Duration::from_millis(200));
    kill("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(130), "interrupted before the run began\n"));

    let mut child = begin();
    wait_for(|| out.join("lock").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(out.join("lock").exists() && !out.join("experiment.json").exists());
    let output = command(folder.path(), &["--out", "out", "--resume"]).output().unwrap();
    assert!(text(&output.stderr).contains("the same command without `--resume` begins it"), "{}", text(&output.stderr));
    fs::remove_file(&text_file).unwrap();
    fs::write(&text_file, "abcdefgh".repeat(400)).unwrap();
    ended(begin());
    assert!(out.join("report.html").exists());
}

#[cfg(unix)]
#[test]
fn a_download_is_given_up_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    // A server that takes every request and answers none.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (asked, was_asked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut connections = Vec::new();
        for connection in server.incoming() {
            connections.push(connection);
            let _ = asked.send(());
        }
    });
    let child = command(folder.path(), &["--dataset", "fashion-mnist", "--out", "out"])
        .env("HF_ENDPOINT", format!("http://{address}"))
        .env("HF_HOME", folder.path().join("cache"))
        .spawn()
        .unwrap();
    was_asked.recv_timeout(Duration::from_secs(60)).unwrap();
    let began = Instant::now();
    kill("-INT", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!folder.path().join("out").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let program = env!("CARGO_BIN_EXE_shootout");
    let child = Command::new("sh")
        .args(["-c", &format!("trap '' HUP; exec {program} {} --out out", ARGS.join(" "))])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(|| out.join("trials").exists());
    kill("-HUP", &child);
    ended(child);
    assert!(out.join("summary.json").exists());
}

#[test]
fn a_trial_that_fails_stops_the_others_which_save_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // Hours, if nobody stops it.
    let args = [
        "--steps",
        "100000000",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--opt",
        "sgd",
        "--checkpoint-every=10",
        "--out",
        "out",
    ];
    let checkpoints = || -> Vec<std::path::PathBuf> {
        let trials = fs::read_dir(out.join("trials")).into_iter().flatten().flatten();
        trials.map(|trial| trial.path().join("checkpoint.safetensors")).filter(|path| path.exists()).collect()
    };
    let mut child = command(folder.path(), &args).spawn().unwrap();
    wait_for(|| checkpoints().len() == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let [damaged, other] = checkpoints().try_into().unwrap();
    fs::write(&damaged, "damaged").unwrap();
    let before = fs::read(&other).unwrap();
    let began = Instant::now();
    let output = resume(folder.path(), "out").wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let stderr = text(&output.stderr);
    let id = damaged.parent().unwrap().file_name().unwrap().to_str().unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with(&format!("error: trial {id}: ")), "{stderr}");
    assert!(fs::read(&other).unwrap() != before, "the other trial has saved itself");
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(id)), "{log}");
}

#[test]
fn a_finished_run_takes_more_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let begin = |out: &str, seeds: &str| {
        let args = ["--steps", "60", "--opt", "adam", "--opt", "sgd", "--tune", "2", "--seeds", seeds, "--out", out];
        ended(command(folder.path(), &args).spawn().unwrap())
    };
    begin("whole", "4");
    begin("grown", "2");
    ended(command(folder.path(), &["--out", "grown", "--resume", "--seeds", "4"]).spawn().unwrap());
    let out = folder.path().join("grown");
    assert!(results(&out) == results(&folder.path().join("whole")));
    let json = |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(out.join(name)).unwrap()).unwrap() };
    let experiment = json("experiment.json");
    assert_eq!((&experiment["config"]["seeds"], experiment["seeds"].as_array().unwrap().len()), (&4.into(), 4));
    assert_eq!(experiment["continued"].as_array().unwrap().len(), 1);
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("seeds = 4"));
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("went on"));

    let output = command(folder.path(), &["--out", "grown", "--resume", "--seeds", "3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--seeds 3: the run has 4"), "{}", text(&output.stderr));
}

#[test]
fn a_run_goes_on_with_data_that_moved_and_not_with_data_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text.repeat(400)).unwrap();
    write("here", "abcdefgh");
    let args =
        ["--text", "here", "--model", "gpt:layers=1,width=8,context=8", "--steps", "2", "--seeds", "1", "--opt", "sgd"];
    ended(command(folder.path(), &[&args[..], &["--out", "out"]].concat()).spawn().unwrap());
    fs::rename(folder.path().join("here"), folder.path().join("there")).unwrap();
    let go_on =
        |args: &[&str]| command(folder.path(), &[&["--out", "out", "--resume"], args].concat()).output().unwrap();
    assert!(text(&go_on(&["--seeds", "2"]).stderr).contains("here"));
    let output = go_on(&["--seeds", "2", "--text", "there"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    write("there", "abcdefgi");
    let trials = || fs::read_dir(folder.path().join("out/trials")).unwrap().count();
    let output = go_on(&["--seeds", "3"]);
    assert_eq!((output.status.code(), trials()), (Some(2), 2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("data set `text`") && stderr.contains("sha256"), "{stderr}");
}

/// A record as programs wrote it before there were checksums.
fn without_checksum(path: &Path) -> String {
    let mut record: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("checksum").unwrap();
    record.to_string()
}

/// Records of another program tell of it.
#[test]
fn a_run_that_another_program_goes_on_with_says_so() {
    let folder = tempfile::tempdir().unwrap();
    ended(command(folder.path(), &["--steps", "1", "--seeds", "1", "--opt", "sgd", "--out", "out"]).spawn().unwrap());
    let out = folder.path().join("out");
    let path = out.join("experiment.json");
    let mut experiment: Value = serde_json::from_str(&without_checksum(&path)).unwrap();
    experiment["versions"]["candle"] = "0.10.0".into();
    fs::write(&path, experiment.to_string()).unwrap();
    fs::remove_file(out.join("summary.json")).unwrap();
    let output = resume(folder.path(), "out").wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("candle 0.10.0 began the run"), "{stderr}");
    let experiment: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(experiment["versions"]["candle"], "0.10.0");
    assert_ne!(experiment["continued"][0]["versions"]["candle"], "0.10.0");
    // Once is enough.
    fs::remove_file(out.join("summary.json")).unwrap();
    let output = resume(folder.path(), "out").wait_with_output().unwrap();
    let experiment: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(experiment["continued"].as_array().unwrap().len(), 1, "{}", text(&output.stderr));
    // And nothing is said where there is nothing to go on with.
    let output = resume(folder.path(), "out").wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}
