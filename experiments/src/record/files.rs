//! Files that appear whole or not at all, and JSON files with a checksum.

use super::checksum;
use anyhow::{Context, Result};
use optim::files::write_whole;
use serde::Serialize;
use std::{fs, io::Write, path::Path};

/// Writes `value` as JSON with a checksum to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let value = checksum::seal(serde_json::to_value(value)?);
    write_text(path, &(serde_json::to_string_pretty(&value)? + "\n"))
}

/// Writes `text` to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes())
}

/// Writes `bytes` to `path`, as [`write_whole`] does.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = write_whole(path, |file| file.write_all(bytes));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// Reads a JSON file.
///
/// # Errors
/// When the file is missing, is not what is expected there, or its checksum is of something else.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || anyhow::Ok(serde_json::from_value(checksum::unseal(serde_json::from_slice(&fs::read(path)?)?)?)?);
    read().with_context(|| format!("cannot read `{}`", path.display()))
}
