//! Reproducible comparisons of optimizers.
//!
//! ```text
//! config -> data + model -> train -> records (jsonl) -> statistics -> report
//! ```
//!
//! A binary is a short table of what it compares, a [`Comparison`], and a call of [`main`]. All binaries have the same
//! [`Options`] and write the same records ([`record`]).

pub mod agreement;
pub mod ahead;
pub mod background;
pub mod batches;
pub mod checkpoint;
pub mod checksum;
pub mod console;
pub mod data;
pub mod device;
pub mod experiment;
pub mod list;
pub mod memory;
pub mod models;
pub mod names;
pub mod optimizer;
pub mod options;
pub mod plot;
pub mod precision;
pub mod probe;
pub mod random;
pub mod record;
pub mod report;
pub mod stats;
pub mod summary;
pub mod tensorboard;
pub mod train;
pub mod tune;

pub use experiment::{Comparison, End, Experiment};
pub use options::{Norm, Options, Settings};
pub use record::GroupConfig;

use clap::{CommandFactory, FromArgMatches};
use console::Console;
use std::{
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// The system's allocator gives the large blocks of activations back at once, and to get them anew costs a page fault per 4 KiB.
/// `.cargo/config.toml` says how this one is set.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Set by the first Ctrl-C or SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

/// The exit status of a run that Ctrl-C or SIGTERM ended.
const INTERRUPTED: u8 = 130;

/// The whole of a binary: reads the command line, runs the comparison, prints the table of results.
///
/// The exit status is 0 after success, 2 when the input is wrong, 1 when a run that began fails, and 130 when Ctrl-C or SIGTERM
/// ended it after everything was saved; errors are one line on stderr.
pub fn main(comparison: Comparison) -> ExitCode {
    let mut command =
        Options::command().name(comparison.name).about(comparison.about).version(env!("CARGO_PKG_VERSION"));
    for special in ["lr", "norm", "tune", "space"] {
        let is_own = comparison.own.iter().any(|own| own.trim_start_matches('-') == special);
        command = command.mut_arg(special, |argument| argument.hide(!is_own));
    }
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
    // A second signal ends the process at once: what was saved can be resumed in any case.
    let handler = ctrlc::set_handler(|| {
        if STOP.swap(true, Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    if let Err(error) = handler {
        tracing::warn!(%error, "Ctrl-C will not save the trials that run");
    }
    let out = experiment.out().path().display().to_string();
    match experiment.run(&STOP) {
        Ok(End::Finished(summary)) => print(&format!("{}\n\nresults in {out}: open report.html\n", summary.table())),
        Ok(End::Interrupted) => {
            let _ = writeln!(io::stderr(), "interrupted; go on with `{} --out {out} --resume`", comparison.name);
            ExitCode::from(INTERRUPTED)
        }
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
