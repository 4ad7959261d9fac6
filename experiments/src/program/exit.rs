//! How a program ends: what it prints, and its exit status.

use crate::run::console;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The exit status of a run that a signal ended.
pub const INTERRUPTED: u8 = 130;
/// What is told where a signal came before that.
pub const NOT_BEGUN: &str = "interrupted before the run began";

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
pub(crate) fn one_line(error: &anyhow::Error) -> String {
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
}
