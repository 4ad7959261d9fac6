//! All that is to be known of a device, in one program: the checks against the CPU, then the benches, then the bars they have
//! to reach, a table each. See `benches/README.md`.
//!
//! `gpu_check [--device cuda|cuda:INDEX|metal|cpu] [--small]`; `--small` has tensors a thousandth as long, to try the program.
//! Exit status: 0; 1 where a check fails or a bar is missed; 2 where the device cannot be opened.

mod op_benches;
#[path = "../../ops/tests/devices/checks.rs"]
mod op_checks;
mod optimizer_benches;
#[path = "../../optim/tests/devices/checks.rs"]
mod optimizer_checks;
mod timing;

use candle_core::{Device, Result};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut name, mut is_small) = ("cuda".to_string(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--small" => is_small = true,
            "--device" => name = arguments.next().unwrap_or_default(),
            _ => return cannot(&format!("`{argument}`: allowed are --device NAME, --small")),
        }
    }
    let device = match open(&name) {
        Ok(device) => device,
        // What follows the first line is a backtrace.
        Err(error) => {
            return cannot(&format!("device `{name}`: {}", error.to_string().lines().next().unwrap_or_default()));
        }
    };
    println!("| check | on {:?} |\n| --- | --- |", device.location());
    let failures = check_optimizers(&device) + check_ops(&device);
    println!();
    let divisor = if is_small { 1_000 } else { 1 };
    let missed = optimizer_benches::benches(&device, divisor);
    match missed.and_then(|missed| op_benches::benches(&device, is_small).map(|()| missed)) {
        Ok(missed) if missed + failures == 0 => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("\n{failures} checks failed, {missed} bars were missed.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = std::result::Result<String, Box<dyn std::error::Error>>;

/// Prints the row of a check; returns how many failed.
fn report(name: &str, outcome: Outcome) -> usize {
    match &outcome {
        Ok(line) => println!("| {name} | ok: {line} |"),
        // What follows the first line of candle's errors is a backtrace.
        Err(error) => println!("| {name} | FAILED: {} |", error.to_string().lines().next().unwrap_or_default()),
    }
    usize::from(outcome.is_err())
}

fn check_optimizers(device: &Device) -> usize {
    let target = optimizer_checks::Target { is_metal: device.is_metal(), device: device.clone(), run: &|f| f() };
    let failures: usize = optimizer_checks::CHECKS.iter().map(|(name, check)| report(name, check(&target))).sum();
    let reads = counter().map_or(Ok("not checked: this driver does not count".to_string()), |count| {
        optimizer_checks::reads_nothing_back(&target, &count)
    });
    failures + report("a step reads nothing back", reads)
}

fn check_ops(device: &Device) -> usize {
    if device.is_metal() {
        return report("ops", Ok("not checked: they are candle's operations here".to_string()));
    }
    let target = op_checks::Target::new(device.clone());
    let table = op_checks::table(&target, target.dtypes()).into_iter();
    let failures: usize = table.map(|(op, outcome)| report(&format!("ops: {op}"), outcome)).sum();
    let checks = op_checks::CHECKS.iter();
    failures + checks.map(|(name, check)| report(&format!("ops: {name}"), check(&target))).sum::<usize>()
}

fn cannot(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

fn open(name: &str) -> Result<Device> {
    match (name, name.strip_prefix("cuda:").map(str::parse::<usize>)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("metal", _) => Device::new_metal(0),
        ("cuda", _) => Device::new_cuda(0),
        (_, Some(Ok(index))) => Device::new_cuda(index),
        _ => candle_core::bail!("allowed are cpu, cuda, cuda:INDEX, metal"),
    }
}

/// How often something was copied to the host, where the driver is the one of `.ci/cuda/host`.
fn counter() -> Option<impl Fn() -> u64> {
    #[cfg(unix)]
    {
        use libloading::os::unix::Library;
        let program = Library::this();
        // SAFETY: only that driver has the name, for a function of this type.
        let count =
            unsafe { program.get::<unsafe extern "C" fn() -> u64>(b"descent_copies_to_host\0") }.ok().map(|f| *f)?;
        // SAFETY: it reads a number.
        Some(move || unsafe { count() })
    }
    #[cfg(not(unix))]
    None::<fn() -> u64>
}
