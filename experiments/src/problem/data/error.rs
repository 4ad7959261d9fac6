//! Why a data set cannot be had.

use crate::config::names;
use std::{fmt::Display, path::Path};

/// Why a data set cannot be had. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No data set has this name; the text names the nearest one.
    #[error("{0}")]
    Unknown(String),
    /// A file is missing or is not what it should be.
    #[error("{file}: expected {expected}, found {found}")]
    File {
        /// The file.
        file: String,
        /// What a right file holds there.
        expected: String,
        /// What this one holds.
        found: String,
    },
    /// Two files of a data set hold the same.
    #[error("{first} and {second} hold the same images: one is a copy of the other")]
    Same {
        /// The one file.
        first: String,
        /// The other.
        second: String,
    },
    /// A file of the Hub could not be downloaded whole.
    #[error(
        "cannot download {file} of the Hub's data set {repo}: {reason}; \
         if you have the data set's files, name their folder with --data-dir DIR"
    )]
    Download {
        /// The Hub's name of the data set.
        repo: String,
        /// The file in it.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// A data set of the Hub is needed by a program that downloads nothing.
    #[error(
        "cannot download the Hub's data set {repo}: this program was built without the feature `hub`; \
         name the folder of the data set's files with --data-dir DIR, or build with that feature"
    )]
    WithoutHub {
        /// The Hub's name of the data set.
        repo: String,
    },
}

impl DataError {
    pub(super) fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown(names::unknown("data set", name, known).to_string())
    }

    pub(super) fn file(path: &Path, expected: impl Display, found: impl Display) -> Self {
        Self::File { file: path.display().to_string(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(super) fn label(path: &Path, classes: usize, label: impl Display, image: usize) -> Self {
        let expected = format!("labels 0 to {}", classes - 1);
        Self::file(path, expected, format!("{label} for image {image}"))
    }
}

/// An error and its causes in one line. A cause that the text before it already tells is left out.
#[cfg(feature = "hub")]
pub(super) fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&text) {
            if !line.is_empty() {
                line += ": ";
            }
            line += &text;
        }
        next = error.source();
    }
    line
}
