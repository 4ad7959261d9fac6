//! Text as numbered characters, and any UTF-8 file as a data set.
//!
//! The vocabulary is the text's own: its different characters, sorted, numbered from 0. The first nine tenths of the
//! characters are for training and the rest for testing, as in nanoGPT's `data/shakespeare_char/prepare.py`.

use super::{
    error::DataError,
    published::sha256,
    spec::{Defaults, Spec},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Any UTF-8 file.
pub const SPEC: Spec = Spec {
    name: "text",
    doc: "the characters of any UTF-8 file (--text FILE)",
    default_model: "gpt",
    defaults: Defaults::TEXT,
    images: None,
    published: &[],
};

/// The fewest characters of a text: both parts then have a character and one that follows it.
const MIN_CHARACTERS: usize = 20;

/// A text, as numbers of its characters.
#[derive(Debug, Clone, PartialEq)]
pub struct TextData {
    /// The name of the data set or of the file.
    pub name: String,
    /// The different characters, sorted. A token is an index into it.
    pub vocabulary: Vec<char>,
    /// What a model learns from: the first nine tenths, rounded down.
    pub train: Vec<u32>,
    /// What it is judged by: the rest.
    pub test: Vec<u32>,
    /// The entropy rate of the text's source in nats per character, where that is known: the least expected loss of any
    /// model.
    pub floor: Option<f64>,
    /// The SHA-256 of the text's UTF-8 bytes, in hexadecimal.
    pub sha256: String,
}

impl TextData {
    /// The text of this name.
    ///
    /// # Errors
    /// When it has fewer than 20 characters: the training part, the test part and the parts of
    /// [`TextData::split_for_tuning`] could not be told apart.
    pub fn from_text(name: &str, text: &str) -> Result<Self, DataError> {
        let mut vocabulary: Vec<char> = text.chars().collect();
        let len = vocabulary.len();
        if len < MIN_CHARACTERS {
            let expected = format!("a text of at least {MIN_CHARACTERS} characters");
            return Err(DataError::file(Path::new(name), expected, len));
        }
        vocabulary.sort_unstable();
        vocabulary.dedup();
        let token = |character| vocabulary.partition_point(|&other| other < character) as u32;
        let mut train: Vec<u32> = text.chars().map(token).collect();
        let test = train.split_off(nine_tenths(len));
        let sha256 = sha256([text.as_bytes()]);
        Ok(Self { name: name.into(), vocabulary, train, test, floor: None, sha256 })
    }

    /// The same text for choosing hyperparameters: the last tenth of the training part is for testing, and the test part
    /// is left out.
    pub fn split_for_tuning(&self) -> Self {
        let (train, test) = self.train.split_at(nine_tenths(self.train.len()));
        Self {
            name: self.name.clone(),
            vocabulary: self.vocabulary.clone(),
            train: train.to_vec(),
            test: test.to_vec(),
            floor: self.floor,
            sha256: self.sha256.clone(),
        }
    }
}

fn nine_tenths(len: usize) -> usize {
    len / 10 * 9 + len % 10 * 9 / 10
}

/// The windows of `context` tokens that begin at `starts`, one after another, and their targets: of each token the one
/// that follows it.
///
/// # Panics
/// When a window, or the token after it, is not in `tokens`: starts go up to `tokens.len() - context - 1`.
pub fn windows(tokens: &[u32], starts: &[usize], context: usize) -> (Vec<u32>, Vec<u32>) {
    let cut = |offset| starts.iter().flat_map(move |start| &tokens[start + offset..][..context]).copied().collect();
    (cut(0), cut(1))
}

/// Reads a UTF-8 file. Its marks of another system, a byte order mark and `\r\n` for a newline, are left out.
///
/// # Errors
/// When there is no file or it cannot be read, a byte is not UTF-8, or the text is too short.
pub fn load(path: Option<&Path>) -> Result<TextData, DataError> {
    let path = path.ok_or_else(|| DataError::file(Path::new("data set text"), "a file (--text FILE)", "none"))?;
    let bytes = fs::read(path).map_err(|error| DataError::file(path, "a readable file", error))?;
    let text = decode(path, bytes)?;
    let data = TextData::from_text(&path.display().to_string(), &text)?;
    let name = path.file_name().map_or_else(|| path.to_owned(), PathBuf::from);
    Ok(TextData { name: name.display().to_string(), ..data })
}

/// The text of these bytes of `path`. A byte order mark at its beginning is no character, and `\r\n` is one newline.
pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let found = "UTF-16, by its byte order mark: `iconv -f UTF-16 -t UTF-8` converts it";
        return Err(DataError::file(path, "UTF-8 text", found));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        let found = format!("the byte {:#04x} at position {position}", error.as_bytes()[position]);
        DataError::file(path, "UTF-8 text", found)
    })?;
    let path = path.display();
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => {
            tracing::warn!("{path}: the byte order mark at its beginning is not taken for a character");
            rest.to_owned()
        }
        None => text,
    };
    let newlines = text.matches("\r\n").count();
    if newlines == 0 {
        return Ok(text);
    }
    tracing::warn!("{path}: {newlines} times CR and LF are taken for one newline each");
    Ok(text.replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sorted_characters_and_the_last_tenth_is_for_testing() {
        let data = TextData::from_text("name", "bß a\nbba€aabb\nabab ba€").unwrap();
        assert_eq!(data.vocabulary, ['\n', ' ', 'a', 'b', 'ß', '€']);
        assert_eq!(data.train, [3, 4, 1, 2, 0, 3, 3, 2, 5, 2, 2, 3, 3, 0, 2, 3, 2, 3, 1]);
        assert_eq!(data.test, [3, 2, 5]);
        assert_eq!((data.name.as_str(), data.floor), ("name", None));
        let tuning = data.split_for_tuning();
        assert_eq!(tuning.train, data.train[..17]);
        assert_eq!(tuning.test, data.train[17..]);
        // printf abcdefghijklmnopqrst | sha256sum
        let data = TextData::from_text("", "abcdefghijklmnopqrst").unwrap();
        assert_eq!(data.sha256, "dd65eea0329dcb94b17187af9dff28c31a1d78026737a16af75979a1fa4618e5");
    }

    /// Python's `int(n * 0.9)`.
    #[test]
    fn nine_tenths_are_rounded_down() {
        for (n, expected) in [(19, 17), (20, 18), (21, 18), (1_115_394, 1_003_854), (usize::MAX, 16602069666338596453)]
        {
            assert_eq!(nine_tenths(n), expected, "{n}");
        }
    }

    #[test]
    fn targets_are_the_tokens_that_follow() {
        let tokens: Vec<u32> = (10..20).collect();
        let (inputs, targets) = windows(&tokens, &[0, 6, 2], 3);
        assert_eq!(inputs, [10, 11, 12, 16, 17, 18, 12, 13, 14]);
        assert_eq!(targets, [11, 12, 13, 17, 18, 19, 13, 14, 15]);
    }
}
