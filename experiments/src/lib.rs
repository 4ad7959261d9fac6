//! Reproducible comparisons of optimizers.
//!
//! ```text
//! config -> data + model -> train -> records (jsonl) -> statistics -> report
//! ```
//!
//! A binary is a short table of what it compares, a [`Comparison`], and a call of [`main`]. All binaries have the same
//! [`Options`] and write the same records ([`record`]).

pub mod agreement;
pub mod config;
pub mod plot;
pub mod problem;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;

pub use config::options::{Norm, Options, Settings};
pub use record::GroupConfig;
pub use run::experiment::{Comparison, End, Experiment};

use clap::{CommandFactory, FromArgMatches};
use run::{
    console::{self, Console},
    list,
};
use signal_hook::{consts, flag};
use std::{
    io::{self, Write},
    path::Path,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// The system's allocator gives the large blocks of activations back at once, and to get them anew costs a page fault per 4 KiB.
/// [`SPEED`] says how this one is set.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What sets the allocator and candle for speed: variables that they read when they start, so that they must be there before the
/// process is. `.cargo/config.toml` has both, with reasons, for what cargo builds and runs here.
const SPEED: [(&str, &str); 2] = [
    ("_RJEM_MALLOC_CONF", "thp:always,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"),
    ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "50"),
];

/// The exit status of a run that a signal ended.
const INTERRUPTED: u8 = 130;
const NOT_BEGUN: &str = "interrupted before the run began";

/// The whole of a binary: reads the command line, runs the comparison, prints the table of results.
///
/// The exit status is 0 after success, 2 when the input is wrong, 1 when a run that began fails, and 130 when Ctrl-C, SIGTERM or
/// SIGHUP ended it after everything was saved; errors are one line on stderr.
pub fn main(comparison: Comparison) -> ExitCode {
    let mut command =
        Options::command().name(comparison.name).about(comparison.about).version(env!("CARGO_PKG_VERSION"));
    for special in ["lr", "norm", "tune", "space"] {
        let is_own = comparison.own.iter().any(|own| own.trim_start_matches('-') == special);
        command = command.mut_arg(special, |argument| argument.hide(!is_own));
    }
    let options = match command.try_get_matches().and_then(|matches| Options::from_arg_matches(&matches)) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    if options.list {
        return print(&list::list(&comparison));
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
    let experiment = Experiment::prepare(comparison, &options, console, &stop);
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
    match experiment.run(&stop) {
        Ok(End::Finished(summary)) => {
            print(&format!("{}\n\nresults in {}: open report.html\n", summary.table(), out.display()))
        }
        Ok(End::Interrupted) => {
            tracing::info!("interrupted");
            let flag = if out.as_os_str().as_encoded_bytes().starts_with(b"-") { "--out=" } else { "--out " };
            let out = config::names::for_shell(out.as_os_str());
            let _ = writeln!(io::stderr(), "interrupted; go on with `{} {flag}{out} --resume`", comparison.name);
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => fail(&error, 1),
    }
}

/// Begins this program anew with [`SPEED`] where it lacks any of that, as the same process.
#[cfg(unix)]
fn set_for_speed() {
    use std::os::unix::process::CommandExt;

    let lacking: Vec<_> = SPEED.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    let (Ok(program), false) = (std::env::current_exe(), lacking.is_empty()) else { return };
    let mut args = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // It returns only where it fails, as when the file was replaced; then all is slower, and the same.
    let _ = command.args(args).envs(lacking).exec();
}

/// Elsewhere no process can begin anew.
#[cfg(not(unix))]
fn set_for_speed() {}

/// Has Ctrl-C, SIGTERM and SIGHUP set `stop`, but for those that are ignored, as by `nohup`: they stay so. A second signal ends the
/// process at once: what was saved can be resumed in any case.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [consts::SIGINT, consts::SIGTERM].into_iter().chain(hangup()) {
        if !is_ignored(signal) {
            flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(stop))?;
            flag::register(signal, Arc::clone(stop))?;
        }
    }
    Ok(())
}

/// Ends the process where a signal came and what is read before the run begins does not end, as of a pipe that nobody writes to:
/// after two seconds. OUT then holds nothing but the lock, and the same command takes it.
fn end_where_preparing_hangs(stop: &Arc<AtomicBool>, is_prepared: &Arc<AtomicBool>) {
    let (stop, is_prepared) = (Arc::clone(stop), Arc::clone(is_prepared));
    thread::spawn(move || {
        let mut since = None;
        while !is_prepared.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            if stop.load(Relaxed) && since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(2) {
                let _ = writeln!(io::stderr(), "{NOT_BEGUN}");
                process::exit(i32::from(INTERRUPTED));
            }
        }
    });
}

/// SIGHUP, where the system tells whether `nohup` has it ignored.
fn hangup() -> Option<i32> {
    #[cfg(target_os = "linux")]
    return Some(consts::SIGHUP);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether this process was begun with `signal` ignored; false where the system does not tell it.
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string(Path::new("/proc/self/status")).is_ok_and(|status| ignores(&status, signal))
}

/// Of `/proc/<pid>/status`: bit 0 is signal 1.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Prints `text`; the exit status.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader such as `head` may close the pipe when it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&anyhow::Error::from(error).context("cannot write to the standard output"), 1)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What clap says of a command line, in one line if it is an error; the exit status.
pub fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let message = error.to_string();
    // How the program is used follows; `--help` says it better.
    let told = message.split("\n\n").take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let parts: Vec<String> = told.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    fail(&anyhow::anyhow!("{}", parts.join("; ").trim_start_matches("error: ")), 2)
}

/// Tells of `error` in one line, on stderr and in the log; the exit status.
pub fn fail(error: &anyhow::Error, status: u8) -> ExitCode {
    let line = one_line(error);
    tracing::error!(target: console::FILE_ONLY, "{line}");
    let _ = writeln!(io::stderr(), "error: {line}");
    ExitCode::from(status)
}

/// The error and its causes. What libraries append to a message on further lines, such as a backtrace, is of no use to a user, nor
/// is a cause that the text before it already tells.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let text = text.lines().next().unwrap_or_default().trim();
        if !line.contains(text) {
            line += if line.is_empty() { "" } else { ": " };
            line += text;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_cause_is_told_once() {
        let full = io::Error::from_raw_os_error(28);
        let path = io::Error::other(format!("{full} at path \"/x/.part-1\""));
        let error = anyhow::Error::from(full).context(path.to_string()).context("cannot write `/x/y`");
        let line = one_line(&error);
        assert_eq!(line.matches("os error 28").count(), 1, "{line}");
        assert!(line.starts_with("cannot write `/x/y`: "), "{line}");
        let error = Err::<(), _>(anyhow!("shapes differ\n   0: candle::bt")).context("trial a").unwrap_err();
        assert_eq!(one_line(&error), "trial a: shapes differ");
    }

    #[test]
    fn an_ignored_signal_is_seen() {
        // `nohup cat /proc/self/status`, with SIGPIPE ignored too.
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(ignores(status, 1) && ignores(status, 13) && !ignores(status, 2) && !ignores(status, 15));
        assert!(!ignores("", 1) && !ignores("SigIgn:\tnone\n", 1));
    }

    /// `cargo test` and `cargo bench` have the settings from there.
    #[test]
    fn what_cargo_runs_is_set_for_speed_too() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cargo/config.toml");
        let config: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        for (name, (own, value)) in
            ["JEMALLOC_SYS_WITH_MALLOC_CONF", "CANDLE_BARRIER_POOL_SPIN_LIMIT"].into_iter().zip(SPEED)
        {
            assert_eq!(config["env"][name].as_str(), Some(value), "{own}");
        }
    }
}
