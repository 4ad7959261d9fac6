//! Files of a known size in a folder that the user names.

use super::DataError;
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// The path of the first of `names` that is in `dir/subfolder`, where that folder exists, or else in `dir`.
pub(super) fn find(dir: &Path, subfolder: &str, names: &[&str]) -> Result<PathBuf, DataError> {
    if !dir.is_dir() {
        let found = if dir.exists() { "something else" } else { "nothing" };
        return Err(DataError::file(dir, "a folder", found));
    }
    let below = dir.join(subfolder);
    let (folder, tried) = if below.is_dir() {
        (below.as_path(), String::new())
    } else {
        (dir, format!(" here or in {}", below.display()))
    };
    let mut paths = names.iter().map(|name| folder.join(name));
    paths.find(|path| path.exists()).ok_or_else(|| {
        let also = match names {
            [_, others @ ..] if !others.is_empty() => format!(" (or {})", others.join(", ")),
            _ => String::new(),
        };
        DataError::file(&folder.join(names[0]), format!("a file{also}{tried}"), "none")
    })
}

/// The bytes of `path`, unpacked if it ends in `.gz`. Reads at most `len + 1` bytes: a file that is too long shows, and
/// costs no memory.
pub(super) fn read(path: &Path, len: usize) -> Result<Vec<u8>, DataError> {
    let open = || -> io::Result<Box<dyn Read>> {
        let file = BufReader::new(File::open(path)?);
        Ok(if path.extension().is_some_and(|ext| ext == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        })
    };
    let mut bytes = Vec::new();
    open().and_then(|file| file.take(len as u64 + 1).read_to_end(&mut bytes)).map_err(|error| {
        let expected = format!("{len} readable bytes");
        let found = format!("an error after {} bytes: {error}", bytes.len());
        DataError::file(path, expected, found)
    })?;
    Ok(bytes)
}

/// Fails unless there are exactly `len` bytes, as [`read`] gives them.
pub(super) fn check_len(path: &Path, bytes: &[u8], len: usize) -> Result<(), DataError> {
    let found = match bytes.len() {
        found if found == len => return Ok(()),
        found if found > len => "more".into(),
        found => found.to_string(),
    };
    Err(DataError::file(path, format!("{len} bytes"), found))
}

/// Fails unless every label is below `classes`.
pub(super) fn check_labels(path: &Path, labels: &[u8], classes: usize) -> Result<(), DataError> {
    match labels.iter().position(|&label| usize::from(label) >= classes) {
        None => Ok(()),
        Some(i) => Err(DataError::label(path, classes, labels[i], i)),
    }
}
