//! Signals: Ctrl-C and its like stop a run, which saves itself.

use super::exit::{INTERRUPTED, NOT_BEGUN};
use signal_hook::{consts, flag};
use std::{
    io::{self, Write},
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Has Ctrl-C, SIGTERM and SIGHUP set `stop`, but for those that are ignored, as by `nohup`: they stay so. A second signal ends the
/// process at once: what was saved can be resumed in any case.
pub fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
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
pub fn end_where_preparing_hangs(stop: &Arc<AtomicBool>, is_prepared: &Arc<AtomicBool>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_seen() {
        // `nohup cat /proc/self/status`, with SIGPIPE ignored too.
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(ignores(status, 1) && ignores(status, 13) && !ignores(status, 2) && !ignores(status, 15));
        assert!(!ignores("", 1) && !ignores("SigIgn:\tnone\n", 1));
    }
}
