//! Commands that a user wants run when a trial diverged, and when the run has ended.

use crate::record::trial::TrialRecord;
use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long the program waits, before it ends, for commands that still run.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variables that a command may find in its environment. What has no value now is not there, though this program may have it.
const VARIABLES: [&str; 6] =
    ["DESCENT_OUT", "DESCENT_TRIAL", "DESCENT_GROUP", "DESCENT_CAUSE", "DESCENT_STATUS", "DESCENT_SUMMARY"];

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With a summary.
    Finished,
    /// By a signal.
    Interrupted,
    /// By an error.
    Failed,
}

/// The commands of a run, and how many of them run now.
pub struct Hooks {
    on_diverge: Option<OsString>,
    on_end: Option<OsString>,
    running: Arc<(Mutex<usize>, Condvar)>,
}

impl Hooks {
    /// Those of these command lines.
    pub fn new(on_diverge: Option<OsString>, on_end: Option<OsString>) -> Self {
        Self { on_diverge, on_end, running: Arc::default() }
    }

    /// Starts the command for a trial of the run in `out` that diverged.
    pub fn diverged(&self, out: &Path, trial: &TrialRecord) {
        let cause = trial.outcome.as_ref().and_then(|outcome| outcome.cause.as_deref()).unwrap_or_default();
        let variables =
            [("DESCENT_TRIAL", &trial.id), ("DESCENT_GROUP", &trial.group), ("DESCENT_CAUSE", &cause.to_owned())];
        let variables = variables.map(|(name, value)| (name, OsString::from(value)));
        self.start(self.on_diverge.as_deref(), out, &variables);
    }

    /// Starts the command for the end of the run in `out`.
    pub fn ended(&self, out: &Path, status: Status) {
        let (word, has_summary) = match status {
            Status::Finished => ("finished", true),
            Status::Interrupted => ("interrupted", false),
            Status::Failed => ("failed", false),
        };
        let mut variables = vec![("DESCENT_STATUS", word.into())];
        variables.extend(has_summary.then(|| ("DESCENT_SUMMARY", absolute(out).join("summary.json").into())));
        self.start(self.on_end.as_deref(), out, &variables);
    }

    /// Starts a command line, where there is one, with these variables, and does not wait for it. Where it fails, that is a warning.
    fn start(&self, line: Option<&OsStr>, out: &Path, variables: &[(&str, OsString)]) {
        let Some(line) = line else { return };
        let name = line.to_string_lossy().into_owned();
        let mut command = shell(line);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.env("DESCENT_OUT", absolute(out)).envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(io::stderr());
        // Ctrl-C is for the run, which then starts its last command.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return tracing::warn!("the command `{name}` cannot be started: {error}"),
        };
        tracing::info!("started the command `{name}`");
        *self.running.0.lock().expect("no holder of the lock panics") += 1;
        let running = Arc::clone(&self.running);
        thread::spawn(move || {
            if let Some(failure) = failure(child.wait()) {
                tracing::warn!("the command `{name}` failed: {failure}");
            }
            let (count, changed) = &*running;
            *count.lock().expect("no holder of the lock panics") -= 1;
            changed.notify_all();
        });
    }

    /// Waits until all commands have ended, for a while.
    pub fn wait(&self) {
        self.wait_for(PATIENCE);
    }

    fn wait_for(&self, patience: Duration) {
        let (count, changed) = &*self.running;
        let until = Instant::now() + patience;
        let mut running = count.lock().expect("no holder of the lock panics");
        while *running > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (n, run) = (*running, if *running == 1 { "command still runs" } else { "commands still run" });
                return tracing::warn!("{n} {run} after {} s, and goes on alone", patience.as_secs());
            }
            running = changed.wait_timeout(running, left).expect("no holder of the lock panics").0;
        }
    }
}

/// The path from the root, since a command may change its folder.
fn absolute(out: &Path) -> PathBuf {
    std::path::absolute(out).unwrap_or_else(|_| out.to_owned())
}

/// How a command failed; none where it did not.
fn failure(ended: io::Result<ExitStatus>) -> Option<String> {
    match ended {
        Ok(status) => (!status.success()).then(|| status.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(unix)]
fn shell(line: &OsStr) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    command
}

#[cfg(windows)]
fn shell(line: &OsStr) -> Command {
    let mut command = Command::new("cmd");
    std::os::windows::process::CommandExt::raw_arg(command.arg("/C"), line);
    command
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_waited_for_but_not_for_ever() {
        for (line, patience, left) in [("sleep 0.2", 60, 0), ("exit 3", 60, 0), ("sleep 3", 0, 1)] {
            let hooks = Hooks::new(None, Some(line.into()));
            hooks.ended(Path::new("."), Status::Failed);
            hooks.wait_for(Duration::from_secs(patience));
            assert_eq!(*hooks.running.0.lock().unwrap(), left, "{line}");
        }
    }
}
