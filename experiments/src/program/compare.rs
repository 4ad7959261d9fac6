//! The whole of a binary that compares: it joins the run and its report.

use super::{
    exit::{INTERRUPTED, NOT_BEGUN, fail, print, usage},
    hooks::{Hooks, Status},
    manual,
    signals::{end_where_preparing_hangs, stop_on_signals},
    speed::set_for_speed,
};
use crate::{
    config::{
        names::for_shell,
        options::{HEADINGS, Options},
        study::{SPECIAL, Study},
        targets::Targets,
    },
    record::{files::write_text, run::Run, trial::TrialRecord},
    report,
    run::{
        console::Console,
        experiment::{End, Experiment},
        list::{describe, list},
        watcher::Watcher,
    },
};
use anyhow::Result;
use clap::{Command, CommandFactory, FromArgMatches};
use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The whole of a binary: reads the command line, runs the comparison, prints the table of results.
///
/// The exit status is 0 after success, 2 when the input is wrong, 1 when a run that began fails, and 130 when Ctrl-C, SIGTERM or
/// SIGHUP ended it after everything was saved; errors are one line on stderr.
pub fn main(study: Study) -> ExitCode {
    let mut command = command(&study);
    let matches = command.try_get_matches_from_mut(env::args_os());
    let options = match matches.and_then(|matches| Options::from_arg_matches(&matches)) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    let told = match options.completions {
        Some(shell) => Some(manual::completions(&mut command, shell)),
        None => options.man.then(|| manual::page(command)),
    };
    if let Some(told) = told {
        return told.map_or_else(|error| fail(&error, 1), |text| print(&text));
    }
    match options.list.as_deref() {
        None => {}
        Some("") => return print(&list(&study)),
        Some(name) => {
            return describe(name, &options.settings.model).map_or_else(|error| fail(&error, 2), |text| print(&text));
        }
    }
    set_for_speed();
    let stop = Arc::new(AtomicBool::new(false));
    let console = match Console::start(options.verbose) {
        Ok(console) => console,
        Err(error) => return fail(&error, 2),
    };
    if let Err(error) = stop_on_signals(&stop) {
        tracing::warn!(%error, "Ctrl-C will not save the trials that run");
    }
    let is_prepared = Arc::new(AtomicBool::new(false));
    end_where_preparing_hangs(&stop, &is_prepared);
    let experiment = Experiment::prepare(study, &options, console, &stop);
    is_prepared.store(true, Relaxed);
    let experiment = match experiment {
        Ok(experiment) => experiment,
        Err(_) if stop.load(Relaxed) => {
            let _ = writeln!(io::stderr(), "{NOT_BEGUN}");
            return ExitCode::from(INTERRUPTED);
        }
        Err(error) => return fail(&error, 2),
    };
    let out = experiment.out().path().to_owned();
    let watch = Watch { hooks: Hooks::new(options.on_diverge, options.on_end) };
    let ended = experiment.run(&stop, &watch);
    // OUT is free for what the last command does there.
    drop(experiment);
    let (code, status) = match ended {
        Ok(End::Finished(summary)) => {
            let text = format!("{}\n\nresults in {}: open report.html\n", summary.table(), out.display());
            (print(&text), Status::Finished)
        }
        Ok(End::Interrupted) => {
            tracing::info!("interrupted");
            let flag = if out.as_os_str().as_encoded_bytes().starts_with(b"-") { "--out=" } else { "--out " };
            let out = for_shell(out.as_os_str());
            let _ = writeln!(io::stderr(), "interrupted; go on with `{} {flag}{out} --resume`", study.name);
            (ExitCode::from(INTERRUPTED), Status::Interrupted)
        }
        Err(error) => (fail(&error, 1), Status::Failed),
    };
    watch.hooks.ended(&out, status);
    watch.hooks.wait();
    code
}

/// What a run tells while it trains: it joins the run and its report.
struct Watch {
    hooks: Hooks,
}

impl Watcher for Watch {
    fn diverged(&self, out: &Path, trial: &TrialRecord) {
        self.hooks.diverged(out, trial);
    }

    fn write_so_far(&self, run: &Run, so_far: &str) -> Result<()> {
        write_page(run, Some(so_far))
    }

    fn write(&self, run: &Run) -> Result<()> {
        for (name, svg) in report::pictures(run)? {
            write_text(&run.out.join(name), &svg)?;
        }
        write_page(run, None)
    }

    fn is_written(&self, out: &Path) -> bool {
        // The process may have been killed when all trials had ended, and the page had not been made anew.
        let head = |page: &str| page.split("</head>").next().map(str::to_owned);
        let head = fs::read_to_string(out.join(PAGE)).ok().and_then(|page| head(&page));
        head.is_some_and(|head| !head.contains("http-equiv=\"refresh\""))
    }
}

/// The page in OUT.
const PAGE: &str = "report.html";

fn write_page(run: &Run, so_far: Option<&str>) -> Result<()> {
    let html = report::html(std::slice::from_ref(run), &Targets::default(), so_far)?;
    write_text(&run.out.join(PAGE), &html)
}

/// The command line of a study.
fn command(study: &Study) -> Command {
    let mut command = Options::command().name(study.name).about(study.about).version(env!("CARGO_PKG_VERSION"));
    command = command.after_help(examples(study));
    for special in SPECIAL {
        let id = special.trim_start_matches('-').replace('-', "_");
        command = command.mut_arg(id, |argument| argument.hide(!study.own.contains(&special)));
    }
    // Headings are printed in the order of the arguments, of which the one that is changed goes to the end.
    for heading in HEADINGS {
        let of_it = command.get_arguments().filter(|argument| argument.get_help_heading() == Some(heading));
        for id in of_it.map(|argument| argument.get_id().clone()).collect::<Vec<_>>() {
            command = command.mut_arg(id, |argument| argument);
        }
    }
    command
}

/// The end of `--help`.
fn examples(study: &Study) -> String {
    let commands =
        study.examples.iter().map(|(args, does)| (format!("{} {args}", study.name).trim_end().to_owned(), does));
    let commands: Vec<_> = commands.collect();
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    let lines = commands.iter().map(|(command, does)| format!("  {command:<width$}  {does}"));
    format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_stands_under_a_heading_and_the_headings_in_order() {
        let study = Study {
            name: "any",
            about: "",
            examples: &[("", "do this"), ("--opt adam", "do that")],
            dataset: "digits",
            model: None,
            optimizers: &["adam"],
            first: None,
            schedules: &["cosine"],
            norm: None,
            peaks: &[],
            steps: None,
            own: &SPECIAL,
            probe: false,
            groups: |_| Ok(Vec::new()),
        };
        let help = command(&study).render_help().to_string();
        let places = HEADINGS
            .map(|heading| help.find(&format!("\n{heading}:\n")).unwrap_or_else(|| panic!("{heading}: {help}")));
        assert!(places.is_sorted(), "{help}");
        let before = &help[..places[0]];
        assert_eq!(
            before.matches("  --").count() + before.matches(", --").count(),
            2,
            "only help and version: {before}"
        );
        assert!(help.trim_end().ends_with("  any --opt adam  do that"), "{help}");
    }
}
