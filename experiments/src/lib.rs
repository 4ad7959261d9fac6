//! Reproducible comparisons of optimizers.
//!
//! ```text
//! config -> data + model -> train -> records (jsonl) -> statistics -> report
//! ```
//!
//! A binary is a short table of what it compares, a [`Comparison`], and a call of [`main`]. All binaries have the same
//! [`Options`] and write the same records ([`record`]).

pub mod console;
pub mod data;
pub mod device;
pub mod experiment;
pub mod list;
pub mod models;
pub mod names;
pub mod optimizer;
pub mod options;
pub mod plot;
pub mod random;
pub mod record;
pub mod stats;
pub mod summary;
pub mod train;

pub use experiment::{Comparison, Experiment};
pub use options::Options;
pub use record::GroupConfig;

use clap::{CommandFactory, FromArgMatches};
use console::Console;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The whole of a binary: reads the command line, runs the comparison, prints the table of results.
///
/// The exit status is 0 after success, 2 when the input is wrong, and 1 when a run that began fails; errors are one line on
/// stderr.
pub fn main(comparison: Comparison) -> ExitCode {
    let command = Options::command().name(comparison.name).about(comparison.about).version(env!("CARGO_PKG_VERSION"));
    let options = Options::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    if options.list {
        return print(&list::list(&comparison));
    }
    let prepared =
        Console::start(options.verbose).and_then(|console| Experiment::prepare(comparison, &options, console));
    let experiment = match prepared {
        Ok(experiment) => experiment,
        Err(error) => return fail(&error, 2),
    };
    match experiment.run() {
        Ok(summary) => print(&format!("{}\n\nresults in {}\n", summary.table(), experiment.out().path().display())),
        Err(error) => fail(&error, 1),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` may close the pipe when it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error.into(), 1),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &anyhow::Error, status: u8) -> ExitCode {
    let message = format!("{error:#}");
    // What libraries append to a message on further lines, such as a backtrace, is of no use to a user.
    let line = message.lines().next().unwrap_or_default();
    let _ = writeln!(io::stderr(), "error: {line}");
    ExitCode::from(status)
}
