//! By what the files of a published data set are known again, wherever they were read from.

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

/// The SHA-256 of these bytes one after another, in hexadecimal.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
