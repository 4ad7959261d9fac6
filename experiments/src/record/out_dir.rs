//! The folder that a run writes to.

use anyhow::{Context, Result, bail};
use optim::files::PART;
use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The folder that a run writes to. It is locked while this lives.
#[derive(Debug)]
pub struct OutDir {
    path: PathBuf,
    /// The folders that had to be made for it, deepest first.
    made: Vec<PathBuf>,
    /// The lock is the system's and goes with the process, however it ends.
    lock: File,
}

const LOCK: &str = "lock";

impl OutDir {
    /// Takes `path`, which must be an empty folder or not exist, and checks that it can be written to. A folder that holds nothing but
    /// what a run leaves that ended before it began to record is as good as empty.
    ///
    /// # Errors
    /// When it holds something, is a file, or cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.with_context(|| format!("OUT `{}`", path.display()))?;
                    if !is_left_by_a_start(&entry) {
                        let hint =
                            if path.join("experiment.json").exists() { "; `--resume` goes on with a run" } else { "" };
                        bail!("OUT `{}` is not empty, and results are never overwritten{hint}", path.display());
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("OUT `{}`", path.display())),
        }
        let missing = path.ancestors().filter(|dir| !dir.as_os_str().is_empty()).take_while(|dir| !dir.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let take = || {
            fs::create_dir_all(path)?;
            let lock = lock(path)?;
            remove_half_written(path)?;
            // Another process may have begun, and ended, since the folder was looked into.
            if path.join("experiment.json").exists() {
                bail!("another process has begun a run there");
            }
            Ok(lock)
        };
        match take() {
            Ok(lock) => Ok(Self { path: path.to_owned(), made, lock }),
            Err(error) => {
                remove_empty(&made);
                Err(error).with_context(|| format!("OUT `{}` cannot be written to", path.display()))
            }
        }
    }

    /// Takes a new folder `runs/<experiment>-<time>`.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn create_default(experiment: &str) -> Result<Self> {
        let runs = Path::new("runs");
        let is_new = !runs.exists();
        fs::create_dir_all(runs).context("the folder `runs` for results cannot be made; `--out` names another")?;
        let time = jiff::ZonedDateTime::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
        for n in 1u32.. {
            let name = if n == 1 { format!("{experiment}-{time}") } else { format!("{experiment}-{time}-{n}") };
            let path = runs.join(name);
            // To make a folder succeeds once, also where several processes try it at the same moment.
            match fs::create_dir(&path) {
                Ok(()) => {
                    let made: Vec<PathBuf> =
                        [path.clone()].into_iter().chain(is_new.then(|| runs.to_owned())).collect();
                    let out = Self::create(&path).inspect_err(|_| remove_empty(&made))?;
                    return Ok(Self { made, ..out });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("OUT `{}`", path.display())),
            }
        }
        bail!("every name for a folder in `runs` is taken")
    }

    /// Takes the folder of a run that began there, and removes what it left half-written.
    ///
    /// # Errors
    /// When no run began there, or another process is at work there.
    pub fn reopen(path: &Path) -> Result<Self> {
        if !path.join("experiment.json").exists() {
            let hint = if path.join(LOCK).exists() { "; the same command without `--resume` begins it" } else { "" };
            bail!("OUT `{}` holds no run to go on with: it has no experiment.json{hint}", path.display());
        }
        let lock = lock(path).with_context(|| format!("OUT `{}`", path.display()))?;
        remove_half_written(path)?;
        for name in ["trials", "tensorboard"] {
            let folder = path.join(name);
            if folder.exists() && !folder.is_dir() {
                bail!("`{}` is a file: it must be a folder, or not exist", folder.display());
            }
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                remove_half_written(&entry.path())?;
            }
        }
        Ok(Self { path: path.to_owned(), made: Vec::new(), lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file of trial `id`.
    pub fn trial_file(&self, id: &str, name: &str) -> PathBuf {
        self.path.join("trials").join(id).join(name)
    }

    /// Removes the lock, and the folders that were made for it as far as they are empty.
    pub fn discard(&self) {
        // One that cannot be removed holds something, which must stay.
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = self.lock.unlock();
        remove_empty(&self.made);
    }
}

fn remove_empty(folders: &[PathBuf]) {
    let _ = folders.iter().try_for_each(fs::remove_dir);
}

/// Removes the files of `folder` that were being written when their process ended.
fn remove_half_written(folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_half_written(&file.file_name()) {
            fs::remove_file(file.path()).with_context(|| format!("cannot remove `{}`", file.path().display()))?;
        }
    }
    Ok(())
}

fn is_half_written(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(PART) || name.ends_with(".part")
}

/// Whether an entry of a folder is the empty file that we lock, or one that was being written when its process ended.
fn is_left_by_a_start(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let is_lock = name == LOCK && entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
    is_lock || name.to_string_lossy().starts_with(PART)
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.with_context(|| format!("cannot write `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process is at work there"),
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(&path);
            let advice = "its file system cannot lock files: give an --out on another, such as a local disk";
            Err(error).context(advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discarded_folder_leaves_nothing_but_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutDir::create(&folder.path().join("a/b/c")).unwrap();
        assert!(folder.path().join("a/b/c").is_dir());
        out.discard();
        assert!(folder.path().is_dir() && !folder.path().join("a").exists());

        fs::create_dir(folder.path().join("mine")).unwrap();
        OutDir::create(&folder.path().join("mine")).unwrap().discard();
        assert!(folder.path().join("mine").is_dir());
    }

    #[test]
    fn a_folder_with_nothing_but_what_a_start_left_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let write = |name: &str, text: &str| {
            fs::create_dir_all(&out).unwrap();
            fs::write(out.join(name), text).unwrap();
        };
        write("lock", "");
        write(".part-abc", "{\"exp");
        let taken = OutDir::create(&out).unwrap();
        assert!(!out.join(".part-abc").exists());
        let busy = format!("{:#}", OutDir::create(&out).unwrap_err());
        assert!(busy.contains("another process is at work there"), "{busy}");
        taken.discard();
        assert!(out.is_dir() && fs::read_dir(&out).unwrap().next().is_none());
        // A file of this name that is not ours, and any other.
        for (name, text) in [("lock", "mine"), ("notes.part", "")] {
            write(name, text);
            let message = format!("{:#}", OutDir::create(&out).unwrap_err());
            assert!(message.contains("not empty"), "{message}");
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), text);
            fs::remove_file(out.join(name)).unwrap();
        }
    }
}
