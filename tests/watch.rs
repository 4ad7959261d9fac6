//! What can be watched of a run while it trains: its page, and the commands that it starts.

use experiments::{
    Targets,
    record::{Phase, Run},
    report,
    run::live::Live,
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

const REPORT: &str = env!("CARGO_BIN_EXE_report");

/// The program as a terminal starts it: what runs this test may ignore signals.
fn shootout(folder: &Path, args: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_shootout");
    let mut command = if cfg!(target_os = "linux") { Command::new("env") } else { Command::new(program) };
    if cfg!(target_os = "linux") {
        command.args(["--default-signal=INT,TERM,HUP", program]);
    }
    command.args(args).current_dir(folder).env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn done(output: Output) -> Output {
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// The page that `report OUT` makes is the one that the run left.
fn check_page(folder: &Path, out: &str) {
    let page = fs::read(folder.join(out).join("report.html")).unwrap();
    done(Command::new(REPORT).arg(out).current_dir(folder).output().unwrap());
    assert!(fs::read(folder.join(out).join("report.html")).unwrap() == page);
    assert!(!text(&page).contains("http-equiv"), "it is not marked as one that changes");
}

#[test]
fn the_page_is_of_the_trials_that_have_ended_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--opt", "sgd:momentum=0|0.9", "--opt", "sgd:lr=1e9", "--opt", "adamw", "--model", "mlp"];
    let length = ["--steps", "12", "--seeds", "2", "--out", "tuned", "--batch-size", "32,64"];
    done(shootout(folder.path(), &[&args[..], &length].concat()).output().unwrap());
    done(
        shootout(folder.path(), &["--tune", "2", "--opt", "sgd", "--opt", "adamw", "--steps", "12", "--out", "two"])
            .output()
            .unwrap(),
    );
    for (out, tuning, finals) in [("tuned", 0, 16), ("two", 4, 6)] {
        check_page(folder.path(), out);
        let path = folder.path().join(out);
        let run = Run::read(&path).unwrap();
        let ids = |phase: Phase| {
            let of = run.trials.iter().filter(move |(record, _)| record.config.phase == phase);
            of.map(|(record, _)| record.id.clone()).collect::<Vec<_>>()
        };
        let (tuning_ids, final_ids) = (ids(Phase::Tune), ids(Phase::Final));
        assert_eq!((tuning_ids.len(), final_ids.len()), (tuning, finals));
        let live = Live::new(&path, run.experiment.clone(), [tuning, finals]);
        let (sender, pages) = mpsc::channel();
        thread::scope(|scope| {
            let over = live.until_dropped();
            let sender = Mutex::new(sender);
            let live = &live;
            scope.spawn(move || {
                let make = |run: &Run, so_far: &str| {
                    let html = report::html(std::slice::from_ref(run), &Targets::default(), Some(so_far))?;
                    sender.lock().unwrap().send((run.clone(), so_far.to_owned(), html))?;
                    Ok(())
                };
                live.keep(Duration::ZERO, make);
            });
            // In the order of their ids, which is any, and each told of twice.
            for (kind, ids) in [("tuning trials", tuning_ids), ("trials", final_ids)] {
                for (i, id) in ids.iter().enumerate() {
                    live.ended(id);
                    live.ended(id);
                    let (so_far, banner, html) = pages.recv_timeout(Duration::from_secs(60)).unwrap();
                    let expected = format!("Running: {} of {} {kind} have ended.", i + 1, ids.len());
                    assert_eq!(banner, expected);
                    assert!(html.contains(&expected) && html.contains("http-equiv=\"refresh\""), "{out}: {html}");
                    if kind == "trials" {
                        assert_eq!(so_far.summary.trials.len(), i + 1);
                        assert!(so_far.summary.groups.iter().all(|group| group.n > 0));
                    } else {
                        assert!(so_far.summary.trials.is_empty() && so_far.summary.tuning.len() == i + 1);
                        assert!(html.contains("No trial that is compared has ended yet."), "{html}");
                    }
                }
            }
            drop(over);
        });
        // Of all trials it has the statistics of the run that has ended.
        let all = Run::so_far(&path, run.experiment.clone(), run.trials.clone()).unwrap();
        assert_eq!(all.summary.trials, run.summary.trials);
        for (so_far, ended) in all.summary.groups.iter().zip(&run.summary.groups) {
            let ended = experiments::record::summary::GroupSummary { searched: None, ..ended.clone() };
            assert_eq!(*so_far, ended);
        }
    }
}

#[test]
fn a_page_that_cannot_be_made_is_not_the_end_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    done(shootout(folder.path(), &["--opt", "sgd", "--steps", "3", "--seeds", "2", "--out", "out"]).output().unwrap());
    let path = folder.path().join("out");
    let run = Run::read(&path).unwrap();
    let live = Live::new(&path, run.experiment.clone(), [0, 2]);
    let (sender, tries) = mpsc::channel();
    thread::scope(|scope| {
        let over = live.until_dropped();
        let (live, sender) = (&live, Mutex::new(sender));
        scope.spawn(move || {
            live.keep(Duration::ZERO, |run, _| {
                sender.lock().unwrap().send(run.trials.len())?;
                if run.trials.len() == 1 { panic!("a page that panics") } else { anyhow::bail!("no page") }
            });
        });
        for (i, (record, _)) in run.trials.iter().enumerate() {
            live.ended(&record.id);
            assert_eq!(tries.recv_timeout(Duration::from_secs(60)).unwrap(), i + 1);
        }
        drop(over);
    });
}

#[cfg(unix)]
#[test]
fn commands_are_told_of_the_run_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--opt", "sgd:lr=1e9", "--opt", "adamw", "--model", "mlp", "--steps", "30", "--seeds", "1"];
    let on_diverge = "echo \"$DESCENT_OUT|$DESCENT_TRIAL|$DESCENT_GROUP|$DESCENT_CAUSE|$DESCENT_STATUS\" >> diverged; echo from-a-command";
    let on_end = "echo \"$DESCENT_OUT|$DESCENT_STATUS|$DESCENT_SUMMARY|$DESCENT_TRIAL\" >> ended; test -e \"$DESCENT_SUMMARY\" && exit 7";
    let hooks = ["--on-diverge", on_diverge, "--on-end", on_end];
    done(shootout(folder.path(), &[&args[..], &["--out", "plain"]].concat()).output().unwrap());
    let output = done(shootout(folder.path(), &[&args[..], &hooks, &["--out", "out"]].concat()).output().unwrap());
    let stderr = text(&output.stderr);
    assert!(stderr.contains("from-a-command") && !text(&output.stdout).contains("from-a-command"), "{stderr}");
    assert!(stderr.contains(&format!("the command `{on_end}` failed: exit status: 7")), "{stderr}");
    let out = folder.path().canonicalize().unwrap().join("out");
    let at = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap().replace("/private", "");
    let out_text = out.display().to_string().replace("/private", "");
    let trials = |out: &str| {
        let entries = fs::read_dir(folder.path().join(out).join("trials")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let diverged = at("diverged");
    let parts: Vec<&str> = diverged.trim_end().split('|').collect();
    let [told_out, trial, group, cause, status] = parts.as_slice() else { panic!("{diverged}") };
    assert_eq!((*told_out, *group, *status), (out_text.as_str(), "sgd:lr=1e9", ""));
    assert!(trials("out").iter().any(|name| name == trial) && cause.contains("step"), "{diverged}");
    assert_eq!(at("ended"), format!("{out_text}|finished|{out_text}/summary.json|\n"));

    // They are no part of what was asked for.
    assert_eq!(trials("out"), trials("plain"));
    assert_eq!(at("out/config.toml"), at("plain/config.toml"));
    assert!(!at("out/config.toml").contains("on_"));

    // Resumed, a run has those that it is given now, and a trial that diverged before does so no more.
    done(shootout(folder.path(), &["--out", "out", "--resume"]).output().unwrap());
    let again = ["--on-end", "echo \"$DESCENT_STATUS\" > second", "--on-diverge", "echo \"$DESCENT_TRIAL\" >> later"];
    done(
        shootout(folder.path(), &[&["--out", "out", "--resume", "--seeds", "2"], &again[..]].concat())
            .output()
            .unwrap(),
    );
    assert_eq!((at("second").as_str(), at("diverged")), ("finished\n", diverged));
    let later = at("later");
    assert!(later.starts_with("sgd-seed1-") && later.lines().count() == 1, "{later}");
    // One that cannot be run is a warning as well.
    let args = ["--out", "out", "--resume", "--on-end", "no-such-command"];
    let output = done(shootout(folder.path(), &args).output().unwrap());
    assert!(text(&output.stderr).contains("the command `no-such-command` failed"), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_so_on_its_page_and_to_its_command() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--opt", "sgd", "--model", "mlp", "--steps", "300", "--seeds", "60", "--jobs", "1", "--out", "out"];
    let on_end = "echo \"$DESCENT_STATUS|$DESCENT_SUMMARY\" > ended";
    let child = shootout(folder.path(), &[&args[..], &["--on-end", on_end]].concat())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = folder.path().join("out");
    let has_ended = || {
        let trials = fs::read_dir(out.join("trials")).into_iter().flatten().flatten();
        trials.filter(|trial| experiments::record::TrialRecord::read(&trial.path()).is_ok()).count() > 1
    };
    while !has_ended() {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Interrupted: ") && page.contains(" of 60 trials have ended"), "{page}");
    assert_eq!(fs::read_to_string(folder.path().join("ended")).unwrap(), "interrupted|\n");
    assert!(!out.join("summary.json").exists());
    done(shootout(folder.path(), &["--out", "out", "--resume"]).output().unwrap());
    check_page(folder.path(), "out");

    // As if it had been killed when all trials had ended, and the page had not been made anew.
    let last = fs::read(out.join("report.html")).unwrap();
    fs::write(out.join("report.html"), page).unwrap();
    done(shootout(folder.path(), &["--out", "out", "--resume"]).output().unwrap());
    assert!(fs::read(out.join("report.html")).unwrap() == last);
    // A page of one's own making stays.
    fs::write(out.join("report.html"), "mine").unwrap();
    done(shootout(folder.path(), &["--out", "out", "--resume"]).output().unwrap());
    assert_eq!(fs::read_to_string(out.join("report.html")).unwrap(), "mine");
}
