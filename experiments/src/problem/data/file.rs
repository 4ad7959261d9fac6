//! Files of a known size in a folder that the user names.

use super::error::DataError;
use flate2::read::MultiGzDecoder;
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// What the names of archives end with.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip"];

/// The path of the first of `names` that is in the first of `subfolders` of `dir` that is there, or else in `dir`.
pub(super) fn find(dir: &Path, subfolders: &[&str], names: &[&str]) -> Result<PathBuf, DataError> {
    if !dir.is_dir() {
        let found = match (dir.exists(), is_archive(dir)) {
            (false, _) => "nothing",
            (true, true) => "an archive: unpack it, and give its folder",
            (true, false) => "something else",
        };
        return Err(DataError::file(dir, "a folder", found));
    }
    let mut below = subfolders.iter().map(|subfolder| dir.join(subfolder));
    let (folder, tried) = match below.clone().find(|below| below.is_dir()) {
        Some(below) => (below, String::new()),
        None => {
            let tried: Vec<String> = below.by_ref().map(|below| below.display().to_string()).collect();
            (dir.to_owned(), format!(" here or in {}", tried.join(" or ")))
        }
    };
    let mut paths = names.iter().map(|name| folder.join(name));
    paths.find(|path| path.exists()).ok_or_else(|| {
        let also = match names {
            [_, others @ ..] if !others.is_empty() => format!(" (or {})", others.join(", ")),
            _ => String::new(),
        };
        let found = match archive_in(&folder) {
            Some(archive) => format!("only the archive {archive}: unpack it there, with `tar -xf` or `unzip`"),
            None => "none".to_owned(),
        };
        DataError::file(&folder.join(names[0]), format!("a file{also}{tried}"), found)
    })
}

fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    ARCHIVES.iter().any(|end| name.ends_with(end))
}

/// The name of the first archive in a folder.
fn archive_in(folder: &Path) -> Option<String> {
    let archives = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| is_archive(path));
    archives.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).min()
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
