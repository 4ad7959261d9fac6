//! The whole of a binary that compares: it joins the run and its report.

use super::{
    exit::{INTERRUPTED, NOT_BEGUN, fail, print, usage},
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
    record::{files::write_text, run::Run},
    report,
    run::{
        console::Console,
        experiment::{End, Experiment},
        list::{describe, list},
    },
};
use anyhow::Result;
use clap::{Command, CommandFactory, FromArgMatches};
use std::{
    env,
    io::{self, Write},
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
    let out = experiment.out().path();
    match experiment.run(&stop, write_report) {
        Ok(End::Finished(summary)) => {
            print(&format!("{}\n\nresults in {}: open report.html\n", summary.table(), out.display()))
        }
        Ok(End::Interrupted) => {
            tracing::info!("interrupted");
            let flag = if out.as_os_str().as_encoded_bytes().starts_with(b"-") { "--out=" } else { "--out " };
            let out = for_shell(out.as_os_str());
            let _ = writeln!(io::stderr(), "interrupted; go on with `{} {flag}{out} --resume`", study.name);
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => fail(&error, 1),
    }
}

/// The command line of a study.
fn command(study: &Study) -> Command {
    let mut command = Options::command().name(study.name).about(study.about).version(env!("CARGO_PKG_VERSION"));
    command = command.after_help(examples(study));
    for special in SPECIAL.map(|option| option.trim_start_matches('-')) {
        let is_own = study.own.iter().any(|own| own.trim_start_matches('-') == special);
        command = command.mut_arg(special, |argument| argument.hide(!is_own));
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

/// Writes the report on a finished run into its folder.
fn write_report(run: &Run) -> Result<()> {
    for (name, svg) in report::pictures(run)? {
        write_text(&run.out.join(name), &svg)?;
    }
    let html = report::html(std::slice::from_ref(run), &Targets::default(), None)?;
    write_text(&run.out.join("report.html"), &html)
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
