//! By what a data set is known again, wherever it was read from.

use super::{Data, Dataset};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file of a published data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// The SHA-256 of what it holds: of images, each label and then the pixels that it is of, as in CIFAR-10's binary files;
    /// of text, its UTF-8 bytes.
    pub sha256: &'static str,
}

/// By what the data of a run is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// A hash over all that it holds. It is the same from files of any form and from the Hub.
    pub sha256: String,
    /// The files that hold something else than the published ones of the data set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

impl Dataset {
    /// By what `data`, which was read as this data set, is known again.
    pub fn fingerprint(self, data: &Data) -> Fingerprint {
        let own = match data {
            Data::Images(images) => images.files.clone(),
            Data::Text(text) => {
                self.spec().published.iter().map(|published| (published.name, text.sha256.clone())).collect()
            }
        };
        let is_other = |name: &str, sha256: &str| {
            self.spec().published.iter().any(|file| file.name == name && file.sha256 != sha256)
        };
        let differs = own.iter().filter(|(name, sha256)| is_other(name, sha256)).map(|(name, _)| name.to_string());
        Fingerprint { sha256: data.sha256(), differs: differs.collect() }
    }
}

/// The SHA-256 of these bytes one after another, in hexadecimal.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
