//! A data set in memory.

use super::{images::ImageData, published, spec::Kind, text::TextData};

/// A data set in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Images with labels.
    Images(ImageData),
    /// Text.
    Text(TextData),
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

    /// The updates of a trial for choosing hyperparameters, where those that follow make `steps`: over images as many passes, so that fewer
    /// are not learned by heart; over text as many.
    pub fn steps_for_tuning(&self, steps: u64) -> u64 {
        match self {
            Self::Images(images) => {
                let (own, all) = (images.len_for_tuning() as u128, images.train.len().max(1) as u128);
                u64::try_from(u128::from(steps) * own / all).unwrap_or(steps).max(1)
            }
            Self::Text(_) => steps,
        }
    }

    /// The same kind of data for choosing hyperparameters, made of a part of the training part for training and the other part for testing.
    /// Nothing of it is from the test part, so what is chosen by it has not seen that.
    ///
    /// Of images the parts are drawn, the same ones each time; of text the last tenth is for testing.
    pub fn split_for_tuning(&self) -> Self {
        match self {
            Self::Images(data) => Self::Images(data.split_for_tuning()),
            Self::Text(data) => Self::Text(data.split_for_tuning()),
        }
    }
}
