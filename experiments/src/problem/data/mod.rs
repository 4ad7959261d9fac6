//! The data sets: images with integer labels, and text as numbered characters.
//!
//! [`Dataset`] names them and [`Dataset::load`] reads one. [`ImageData::batch`] and [`text::windows`] make what a model
//! takes. The digits and the language are parts of the program; the others come from files or from the Hugging Face
//! Hub, with the same bytes from either.

pub mod cifar10;
pub mod digits;
mod error;
pub mod fashion_mnist;
mod file;
pub mod hub;
mod images;
pub mod language;
mod published;
pub mod text;
pub mod tinyshakespeare;

pub use error::DataError;
pub use hub::Hub;
pub use images::{Augment, ImageData, ImageSpec, Split};
pub use published::{Fingerprint, Published};
pub use text::TextData;

use serde::{Deserialize, Serialize};
use std::{fmt, path::Path, str::FromStr};

/// The data sets that an experiment can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// [`digits`]
    Digits,
    /// [`fashion_mnist`]
    FashionMnist,
    /// [`cifar10`]
    Cifar10,
    /// [`language`]
    Language,
    /// [`tinyshakespeare`]
    Tinyshakespeare,
    /// [`text`]
    Text,
}

/// What a data set holds, and what a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Images with labels.
    Images,
    /// Text, character by character.
    Text,
}

/// What a data set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The name that options and records use.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// The model that an experiment uses where it is told none.
    pub default_model: &'static str,
    /// Its images; none for text.
    pub images: Option<ImageSpec>,
    /// The files that it is published as; none for any text.
    pub published: &'static [Published],
}

/// A data set in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Images with labels.
    Images(ImageData),
    /// Text.
    Text(TextData),
}

impl Dataset {
    /// Every data set: images, then text, the smallest first.
    pub const ALL: [Self; 6] =
        [Self::Digits, Self::FashionMnist, Self::Cifar10, Self::Language, Self::Tinyshakespeare, Self::Text];

    /// Its name, default model and sizes.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Digits => &digits::SPEC,
            Self::FashionMnist => &fashion_mnist::SPEC,
            Self::Cifar10 => &cifar10::SPEC,
            Self::Language => &language::SPEC,
            Self::Tinyshakespeare => &tinyshakespeare::SPEC,
            Self::Text => &text::SPEC,
        }
    }

    /// Whether it comes from files in a folder or from the Hub.
    pub fn has_files(self) -> bool {
        matches!(self, Self::FashionMnist | Self::Cifar10 | Self::Tinyshakespeare)
    }

    /// Reads the data set from the folder `data_dir`, or from the Hub where there is none. From neither come
    /// [`Dataset::Digits`] and [`Dataset::Language`], which need no files, and [`Dataset::Text`], which is the file `text`. A
    /// download goes as `hub` says. Data that is not as it was published is warned of.
    ///
    /// # Errors
    /// A file that is missing, damaged, of the wrong size or a copy of another one, or a failed download: one line that names the
    /// file, what was expected and what was found.
    pub fn load(self, data_dir: Option<&Path>, text: Option<&Path>, hub: &Hub) -> Result<Data, DataError> {
        let data = match self {
            Self::Digits => Data::Images(digits::load()),
            Self::FashionMnist => Data::Images(fashion_mnist::load(&fashion_mnist::IMAGES, data_dir, hub)?),
            Self::Cifar10 => Data::Images(cifar10::load(&cifar10::IMAGES, data_dir, hub)?),
            Self::Language => Data::Text(language::load()?),
            Self::Tinyshakespeare => Data::Text(tinyshakespeare::load(data_dir, hub)?),
            Self::Text => Data::Text(text::load(text)?),
        };
        let differs = self.fingerprint(&data).differs;
        if !differs.is_empty() {
            tracing::warn!("{self}: {} not what was published: results are of other data", differ(&differs));
        }
        Ok(data)
    }
}

/// Names as the subject of a sentence, with its verb.
fn differ(names: &[String]) -> String {
    match names {
        [name] => format!("`{name}` is"),
        names => format!("`{}` are", names.join("`, `")),
    }
}

impl Spec {
    /// What the data set holds.
    pub fn kind(&self) -> Kind {
        if self.images.is_some() { Kind::Images } else { Kind::Text }
    }
}

impl Data {
    /// What this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Images(_) => Kind::Images,
            Self::Text(_) => Kind::Text,
        }
    }

    /// The name of the data set, or of the file.
    pub fn name(&self) -> &str {
        match self {
            Self::Images(data) => data.name,
            Self::Text(data) => &data.name,
        }
    }

    /// How many answers a model chooses from: labels, or characters.
    pub fn classes(&self) -> usize {
        match self {
            Self::Images(data) => data.classes,
            Self::Text(data) => data.vocabulary.len(),
        }
    }

    /// The images, or characters, for training.
    pub fn train_len(&self) -> usize {
        match self {
            Self::Images(data) => data.train.len(),
            Self::Text(data) => data.train.len(),
        }
    }

    /// The images, or characters, for testing.
    pub fn test_len(&self) -> usize {
        match self {
            Self::Images(data) => data.test.len(),
            Self::Text(data) => data.test.len(),
        }
    }

    /// The least expected loss that any model can reach, in nats per answer, where that is known.
    pub fn floor(&self) -> Option<f64> {
        match self {
            Self::Images(_) => None,
            Self::Text(data) => data.floor,
        }
    }

    /// The loss of the best prediction that ignores the input, in nats: the entropy of the shares that the answers have in
    /// the test part. A model that has learned anything is below it.
    pub fn constant_loss(&self) -> f64 {
        let mut counts = vec![0usize; self.classes()];
        match self {
            Self::Images(data) => data.test.labels.iter().for_each(|&label| counts[label as usize] += 1),
            Self::Text(data) => data.test.iter().for_each(|&token| counts[token as usize] += 1),
        }
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / self.test_len() as f64);
        shares.map(|share| -share * share.ln()).sum()
    }

    /// A hash over all that it holds: of text, that of its UTF-8 bytes.
    pub fn sha256(&self) -> String {
        match self {
            Self::Images(data) => {
                let sizes = [data.channels, data.height, data.width, data.classes, data.max_value.into()];
                let sizes = format!("{sizes:?}");
                let files = data.files.iter().map(|(_, sha256)| sha256.as_bytes());
                published::sha256(std::iter::once(sizes.as_bytes()).chain(files))
            }
            Self::Text(data) => data.sha256.clone(),
        }
    }

    /// The same kind of data for choosing hyperparameters, made of nine tenths of the training part for training and the
    /// other tenth for testing. Nothing of it is from the test part, so what is chosen by it has not seen that.
    ///
    /// Of images the tenth is drawn, the same one each time; of text it is the end.
    pub fn split_for_tuning(&self) -> Self {
        match self {
            Self::Images(data) => Self::Images(data.split_for_tuning()),
            Self::Text(data) => Self::Text(data.split_for_tuning()),
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Images => "images",
            Self::Text => "text",
        })
    }
}

impl FromStr for Dataset {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.into_iter().find(|dataset| dataset.spec().name == name).ok_or_else(|| DataError::unknown(name))
    }
}
