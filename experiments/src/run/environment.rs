//! What the program is, where it runs, and when.

use crate::record::experiment::Versions;
use anyhow::Result;
use std::{fs, path::Path};

/// The versions of what computes.
pub fn versions() -> Versions {
    Versions {
        experiments: env!("CARGO_PKG_VERSION").to_owned(),
        candle: env!("DESCENT_CANDLE_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        processor: processor(),
    }
}

/// The commit that the program was built from, with `-dirty` where files differed from it; none outside a repository.
pub fn commit() -> Option<String> {
    option_env!("DESCENT_COMMIT").map(str::to_owned)
}

/// The time, to the second, with its zone.
///
/// # Errors
/// When it cannot be rounded.
pub fn now() -> Result<String> {
    Ok(jiff::ZonedDateTime::now().round(jiff::Unit::Second)?.to_string())
}

/// The processor's name, where the system tells it.
fn processor() -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
