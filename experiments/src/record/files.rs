//! Files that appear whole or not at all, and JSON files with a checksum.

use super::checksum;
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// What the name of a file that is being written begins with.
pub(super) const PART: &str = ".part-";

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

/// Writes `bytes` to `path`, whole or not at all: to a file beside it, which is synced and renamed. A link stays one, and what it
/// leads to is written; what is no regular file, such as a pipe or `/dev/stdout`, is written into.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || match place(path)? {
        Place::Into => File::options().append(true).open(path)?.write_all(bytes),
        Place::Of(path) => {
            // A bare name has the empty path for its folder, which no system finds.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut builder = tempfile::Builder::new();
            builder.prefix(PART);
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let mut file = builder.tempfile_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            // The rename itself; not every system lets a folder be opened for that.
            #[cfg(unix)]
            File::open(folder)?.sync_all()?;
            Ok(())
        }
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Whether `path` is a file that is replaced when it is written, or will be one.
pub fn is_replaced(path: &Path) -> bool {
    !matches!(place(path), Ok(Place::Into))
}

/// Where a file is written.
enum Place {
    /// Into what is there, which cannot be replaced by a file.
    Into,
    /// In place of this file.
    Of(PathBuf),
}

/// Follows `path` to what is written.
fn place(path: &Path) -> std::io::Result<Place> {
    match fs::metadata(path) {
        // A folder can be neither; writing says so.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => return Ok(Place::Into),
        // A link that leads nowhere is written as the file that it names. One that leads in a circle is an error.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut path = path.to_owned();
    while let Ok(target) = fs::read_link(&path) {
        // The system's own links stand for what a process has open, as `/dev/stdout` does, and need not name a file.
        if ["/dev", "/proc"].iter().any(|own| path.starts_with(own)) {
            return Ok(Place::Into);
        }
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Ok(Place::Of(path))
}

/// Reads a JSON file.
///
/// # Errors
/// When the file is missing, is not what is expected there, or its checksum is of something else.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || anyhow::Ok(serde_json::from_value(checksum::unseal(serde_json::from_slice(&fs::read(path)?)?)?)?);
    read().with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_text_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        for text in ["first", "second"] {
            write_text(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_text(&folder.path().join("none/summary.json"), "x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_stays_a_link() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("pages")).unwrap();
        fs::write(at("pages/old.html"), "old").unwrap();
        for (link, target, file) in [
            ("to_a_file", "pages/old.html", "pages/old.html"),
            ("to_a_link", "to_a_file", "pages/old.html"),
            ("to_nothing_yet", "pages/new.html", "pages/new.html"),
        ] {
            symlink(target, at(link)).unwrap();
            write_text(&at(link), link).unwrap();
            assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(target));
            assert!(fs::symlink_metadata(at(file)).unwrap().is_file());
            assert_eq!(fs::read_to_string(at(file)).unwrap(), link);
            assert!(is_replaced(&at(link)));
        }
        assert_eq!(fs::read_dir(at("pages")).unwrap().count(), 2, "nothing is left beside them");
        symlink("circle", at("circle")).unwrap();
        let message = format!("{:#}", write_text(&at("circle"), "x").unwrap_err());
        assert!(message.contains("circle"), "{message}");
        assert!(write_text(&at("pages"), "x").is_err(), "a folder is no file");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_written_into() {
        use std::{io::Read, os::unix::fs::FileTypeExt};
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write_text(&pipe, "page").unwrap();
        assert_eq!(reader.join().unwrap(), "page");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo() && !is_replaced(&pipe));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
