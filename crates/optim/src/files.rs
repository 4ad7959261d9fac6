//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the name of a file begins with while it is written. A file of such a name is left behind where its process was killed.
pub const PART: &str = ".part-";

/// Lets `write` fill a file beside `path`, makes that durable, and renames it to `path`, which is never half-written.
///
/// A link stays one, and what it leads to is written. What is no regular file, such as a pipe or `/dev/stdout`, is written into. A
/// new file has the permissions that the process gives to its files.
///
/// # Errors
/// Those of `write`, and where the file cannot be written. Before the rename `path` is then as it was, and nothing is left beside it.
///
/// ```
/// use std::io::Write;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("notes.txt");
/// optim::files::write_whole(&path, |file| file.write_all(b"all of it"))?;
/// assert_eq!(std::fs::read(&path)?, b"all of it");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let Some(path) = replaced(path)? else {
        return write(&mut File::options().append(true).open(path)?);
    };
    // A bare name has the empty path for its folder, which no system finds.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (mut file, part) = Part::create(folder)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    part.rename(&path)?;
    // The rename itself; not every system lets a folder be opened for that.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Whether `path` is a file that is replaced when it is written, or will be one.
pub fn is_replaced(path: &Path) -> bool {
    !matches!(replaced(path), Ok(None))
}

/// The file that takes the place of what `path` leads to; none where that is no regular file and is written into.
fn replaced(path: &Path) -> Result<Option<PathBuf>> {
    match fs::metadata(path) {
        // A folder can be neither; writing says so.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => return Ok(None),
        // A link that leads nowhere is written as the file that it names. One that leads in a circle is an error.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut path = path.to_owned();
    while let Ok(target) = fs::read_link(&path) {
        // The system's own links stand for what a process has open, as `/dev/stdout` does, and need not name a file.
        if ["/dev", "/proc"].iter().any(|own| path.starts_with(own)) {
            return Ok(None);
        }
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Ok(Some(path))
}

/// A file that is being written. It is removed where it does not get its name.
struct Part(PathBuf);

impl Part {
    fn create(folder: &Path) -> Result<(File, Self)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // A process of the same number may have left a few, or be at work on another machine.
        for _ in 0..1 << 16 {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{PART}{}-{next}", std::process::id()));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Self(path))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, "every name for a new file is taken"))
    }

    fn rename(self, path: &Path) -> Result<()> {
        fs::rename(&self.0, path)?;
        // It is not there any more, so there is nothing to remove.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn write_text(path: &Path, text: &str) -> Result<()> {
        write_whole(path, |file| file.write_all(text.as_bytes()))
    }

    #[test]
    fn a_written_file_replaces_the_one_before_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for text in ["first", "second"] {
            write_text(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let failed = write_whole(&path, |file| {
            file.write_all(b"thi")?;
            Err(Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_text(&folder.path().join("none/a"), "x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_has_the_permissions_of_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(folder.path().join(name)).unwrap().permissions().mode()
        };
        write_text(&folder.path().join("whole"), "x").unwrap();
        fs::write(folder.path().join("plain"), "x").unwrap();
        assert_eq!(mode("whole"), mode("plain"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_stays_a_link() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("pages")).unwrap();
        fs::write(at("pages/old"), "old").unwrap();
        for (link, target, file) in [
            ("to_a_file", "pages/old", "pages/old"),
            ("to_a_link", "to_a_file", "pages/old"),
            ("to_nothing_yet", "pages/new", "pages/new"),
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
        assert!(write_text(&at("circle"), "x").is_err());
        assert!(write_text(&at("pages"), "x").is_err(), "a folder is no file");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_written_into() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write_text(&pipe, "page").unwrap();
        assert_eq!(reader.join().unwrap(), "page");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo() && !is_replaced(&pipe));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
