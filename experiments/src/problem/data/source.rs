//! Where a data set lies on the Hugging Face Hub, and how its files are got from there.

use indicatif::MultiProgress;
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Where the Hub keeps a data set of `FILES` splits.
pub(super) struct Source<const FILES: usize> {
    /// `owner/name`, or only the name.
    pub repo: &'static str,
    /// The file of each split, the training split first.
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "nothing is downloaded"))]
    pub files: [&'static str; FILES],
}

/// How to get files from the Hub. Its address and the cache's folder are what the variables `HF_ENDPOINT` and `HF_HOME`
/// say, as everywhere with the Hub.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Where the bar of a download is shown.
    pub progress: MultiProgress,
    /// How long a download may go without a new byte until it counts as failed.
    pub patience: Duration,
    /// Once it is set, a download is given up.
    pub stop: Arc<AtomicBool>,
}

impl Hub {
    /// With a patience of one minute.
    pub fn new(progress: &MultiProgress) -> Self {
        Self { progress: progress.clone(), patience: Duration::from_secs(60), stop: Arc::default() }
    }
}
