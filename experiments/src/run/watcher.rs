//! Who is told of a run while it trains, and writes its pages: this room knows no report.

use crate::record::{run::Run, trial::TrialRecord};
use anyhow::Result;
use std::path::Path;

/// Is told of a run, by any of its threads.
pub trait Watcher: Sync {
    /// A trial of the run in `out` has diverged.
    fn diverged(&self, out: &Path, trial: &TrialRecord);

    /// Writes the page of a run that has not ended; `so_far` says how far it is.
    ///
    /// # Errors
    /// When it cannot be made or written.
    fn write_so_far(&self, run: &Run, so_far: &str) -> Result<()>;

    /// Writes the pages of a run that has ended.
    ///
    /// # Errors
    /// When they cannot be made or written.
    fn write(&self, run: &Run) -> Result<()>;

    /// Whether the page in `out` is that of a run that has ended.
    fn is_written(&self, out: &Path) -> bool;
}
