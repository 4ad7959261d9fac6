//! Tells the program what it is built from: DESCENT_COMMIT and DESCENT_CANDLE_VERSION.

use std::{fs, process::Command};

fn main() {
    // A commit or a checkout appends to the log of HEAD; an edit of the sources can make the tree dirty.
    for path in ["src", "../crates", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]) {
        println!("cargo::rustc-env=DESCENT_COMMIT={commit}");
    }
    let lock = fs::read_to_string("../Cargo.lock").expect("the workspace has a Cargo.lock");
    let candle = lock.split("name = \"candle-core\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    println!("cargo::rustc-env=DESCENT_CANDLE_VERSION={}", candle.expect("Cargo.lock has candle-core"));
}

/// The output of a git command; none without git or outside a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
