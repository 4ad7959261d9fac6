//! The data sets by name.

use super::{
    cifar10, digits, error::DataError, fashion_mnist, language, loaded::Data, source::Hub, spec::Spec, text,
    tinyshakespeare,
};
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

/// Names as the subject of a sentence, with its verb.
fn differ(names: &[String]) -> String {
    match names {
        [name] => format!("`{name}` is"),
        names => format!("`{}` are", names.join("`, `")),
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().name)
    }
}

impl FromStr for Dataset {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL
            .into_iter()
            .find(|dataset| dataset.spec().name == name)
            .ok_or_else(|| DataError::unknown(name, Self::ALL.map(|dataset| dataset.spec().name)))
    }
}
