//! Tiny Shakespeare: a million characters of Shakespeare's plays (Karpathy 2015, "The Unreasonable Effectiveness of
//! Recurrent Neural Networks"), the usual text for small language models.

use super::{
    error::DataError,
    file,
    published::Published,
    source::{Hub, Source},
    spec::{Defaults, Spec},
    text::{self, TextData},
};
use std::path::Path;

/// 1,115,394 characters of 65 kinds.
pub const SPEC: Spec = Spec {
    name: "tinyshakespeare",
    doc: "a million characters of Shakespeare's plays",
    default_model: "gpt",
    defaults: Defaults::TEXT,
    images: None,
    published: &[Published {
        name: "tinyshakespeare.txt",
        sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    }],
};

const BYTES: usize = 1_115_394;
const CHARACTERS: usize = 65;

/// The Hub's splits are the text from its beginning to its end.
const HUB: Source<3> = Source {
    repo: "karpathy/tiny_shakespeare",
    files: ["default/train/0000.parquet", "default/validation/0000.parquet", "default/test/0000.parquet"],
};

/// Reads the text from `path`, which is the file, or a folder with `tinyshakespeare.txt` or `input.txt`; from the Hub where
/// there is no path.
///
/// # Errors
/// As [`Dataset::load`](super::dataset::Dataset::load).
pub fn load(path: Option<&Path>, hub: &Hub) -> Result<TextData, DataError> {
    let text = match path {
        Some(path) => {
            let file = match path.is_file() {
                true => path.to_owned(),
                false => file::find(path, &[SPEC.name], &["tinyshakespeare.txt", "input.txt"])?,
            };
            // With `\r\n` at the end of each line it is 4 % longer.
            let text = text::decode(&file, file::read(&file, 2 * BYTES)?)?;
            check(&file, &text)?;
            text
        }
        None => hub.text(&HUB, |text| check(Path::new(HUB.repo), text))?,
    };
    TextData::from_text(SPEC.name, &text)
}

/// Fails unless the text of `path` has the right number of bytes and of different characters.
fn check(path: &Path, text: &str) -> Result<(), DataError> {
    file::check_len(path, text.as_bytes(), BYTES)?;
    let mut characters: Vec<char> = text.chars().collect();
    characters.sort_unstable();
    characters.dedup();
    match characters.len() {
        CHARACTERS => Ok(()),
        found => Err(DataError::file(path, format!("{CHARACTERS} different characters"), found)),
    }
}
