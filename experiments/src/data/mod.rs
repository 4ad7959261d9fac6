//! The data sets: images with integer labels, held as bytes and normalised batch by batch.
//!
//! [`Dataset`] names them, [`Dataset::load`] reads one, and [`ImageData::batch`] makes what a model takes.
//! The digits are a part of the program; Fashion-MNIST and CIFAR-10 come from a folder or from the Hugging Face Hub,
//! with the same bytes from either.

pub mod cifar10;
pub mod digits;
mod error;
pub mod fashion_mnist;
mod file;
pub mod hub;

pub use error::DataError;
pub use hub::Hub;

use indicatif::MultiProgress;
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
}

/// What a data set is, and what its files must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The name that options and records use.
    pub name: &'static str,
    /// One line for lists.
    pub doc: &'static str,
    /// The model that an experiment uses where it is told none.
    pub default_model: &'static str,
    /// Colour channels of an image.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Labels are `0..classes`.
    pub classes: usize,
    /// The byte that stands for full brightness.
    pub max_value: u8,
    /// Images for training.
    pub train: usize,
    /// Images for testing.
    pub test: usize,
}

impl Spec {
    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl Dataset {
    /// Every data set, the smallest first.
    pub const ALL: [Self; 3] = [Self::Digits, Self::FashionMnist, Self::Cifar10];

    /// Its name, sizes and default model.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Digits => &digits::SPEC,
            Self::FashionMnist => &fashion_mnist::SPEC,
            Self::Cifar10 => &cifar10::SPEC,
        }
    }

    /// Reads the data set from the folder `data_dir`, or from the Hub where there is none (and from neither for
    /// [`Dataset::Digits`], which needs no files). A download shows a bar in `progress`.
    ///
    /// # Errors
    /// A file that is missing, damaged or of the wrong size, or a failed download: one line that names the file, what
    /// was expected and what was found.
    pub fn load(self, data_dir: Option<&Path>, progress: &MultiProgress) -> Result<ImageData, DataError> {
        self.load_as(self.spec(), data_dir, &Hub::new(progress))
    }

    /// [`Dataset::load`] for files in this data set's format which hold the numbers of images, and come from the Hub
    /// in the way, that the caller says.
    ///
    /// # Errors
    /// As [`Dataset::load`].
    pub fn load_as(self, spec: &Spec, data_dir: Option<&Path>, hub: &Hub) -> Result<ImageData, DataError> {
        let (train, test) = match (self, data_dir) {
            (Self::Digits, _) => digits::read(),
            (Self::FashionMnist, Some(dir)) => fashion_mnist::read_dir(spec, dir)?,
            (Self::FashionMnist, None) => hub.read(&fashion_mnist::HUB, spec)?,
            (Self::Cifar10, Some(dir)) => cifar10::read_dir(spec, dir)?,
            (Self::Cifar10, None) => hub.read(&cifar10::HUB, spec)?,
        };
        Ok(ImageData::new(spec, train, test))
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
        Self::ALL.into_iter().find(|dataset| dataset.spec().name == name).ok_or_else(|| DataError::unknown(name))
    }
}

/// A data set of images with integer labels, held as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageData {
    /// The data set's name.
    pub name: &'static str,
    /// Colour channels of an image.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Labels are `0..classes`.
    pub classes: usize,
    /// The byte that stands for full brightness, 1.0.
    pub max_value: u8,
    /// What a model learns from.
    pub train: Split,
    /// What it is judged by.
    pub test: Split,
    /// Per channel, the mean of the training split's pixels, in 0..1 (byte / `max_value`).
    pub mean: Vec<f32>,
    /// Per channel, the standard deviation of the training split's pixels about that mean (divided by their number,
    /// not by one less), in the same unit; 1 for a channel that never changes, so that it can divide.
    pub std: Vec<f32>,
}

/// Images and their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// Bytes in the order (image, channel, row, column).
    pub images: Vec<u8>,
    /// One label per image.
    pub labels: Vec<u8>,
}

impl Split {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn with_capacity(images: usize, image_len: usize) -> Self {
        Self { images: Vec::with_capacity(images * image_len), labels: Vec::with_capacity(images) }
    }
}

/// How one training image is moved and mirrored. The default leaves it alone.
///
/// With `dy` and `dx` uniform in -4..=4 and `flip` a fair coin it is the usual CIFAR-10 augmentation (He et al. 2016,
/// arXiv:1512.03385, section 4.2): pad by 4 pixels, cut out a window of the image's size, mirror it at random. The
/// padding is black before normalisation, as in PyTorch's pipeline of `RandomCrop(32, padding=4)`,
/// `RandomHorizontalFlip`, `ToTensor`, `Normalize`, so a padded pixel becomes `-mean / std`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augment {
    /// Rows that the window lies lower than the image.
    pub dy: i8,
    /// Columns that the window lies farther right than the image.
    pub dx: i8,
    /// Whether to swap left and right, after the window was cut.
    pub flip: bool,
}

impl ImageData {
    fn new(spec: &Spec, train: Split, test: Split) -> Self {
        let (mean, std) = mean_and_std(spec, &train);
        Self {
            name: spec.name,
            channels: spec.channels,
            height: spec.height,
            width: spec.width,
            classes: spec.classes,
            max_value: spec.max_value,
            train,
            test,
            mean,
            std,
        }
    }

    /// The pixels of `split`'s images at `indices`, `(byte / max_value - mean) / std` in the order (image, channel, row,
    /// column), and their labels. `augment` has one entry per index; evaluation gives none.
    ///
    /// # Panics
    /// When an index is not in the split, or `augment` has another length than `indices`.
    pub fn batch(&self, split: &Split, indices: &[usize], augment: Option<&[Augment]>) -> (Vec<f32>, Vec<u32>) {
        if let Some(augment) = augment {
            assert_eq!(augment.len(), indices.len(), "one augmentation per image");
        }
        let plane_len = self.height * self.width;
        let image_len = self.channels * plane_len;
        let mut pixels = vec![0.0; indices.len() * image_len];
        for (i, (out, &index)) in pixels.chunks_exact_mut(image_len).zip(indices).enumerate() {
            let augment = augment.map_or(Augment::default(), |augment| augment[i]);
            let image = &split.images[index * image_len..][..image_len];
            let planes = out.chunks_exact_mut(plane_len).zip(image.chunks_exact(plane_len));
            for (channel, (out, plane)) in planes.enumerate() {
                let scale = 1.0 / (f32::from(self.max_value) * self.std[channel]);
                let black = -self.mean[channel] / self.std[channel];
                self.write_plane(out, plane, augment, |byte| f32::from(byte) * scale + black);
            }
        }
        let labels = indices.iter().map(|&index| split.labels[index].into()).collect();
        (pixels, labels)
    }

    fn write_plane(
        &self,
        out: &mut [f32],
        plane: &[u8],
        Augment { dy, dx, flip }: Augment,
        normalise: impl Fn(u8) -> f32,
    ) {
        let (dy, dx, width) = (isize::from(dy), isize::from(dx), self.width as isize);
        // The columns of the window that the image covers.
        let left = (-dx).clamp(0, width);
        let right = (width - dx).clamp(0, width);
        for (y, out) in out.chunks_exact_mut(self.width).enumerate() {
            let row = y.checked_add_signed(dy).filter(|&row| row < self.height && left < right);
            match row {
                Some(row) => {
                    let start = row * self.width + (left + dx) as usize;
                    let (left, right) = (left as usize, right as usize);
                    out[..left].fill(normalise(0));
                    out[right..].fill(normalise(0));
                    let bytes = &plane[start..][..right - left];
                    for (out, &byte) in out[left..right].iter_mut().zip(bytes) {
                        *out = normalise(byte);
                    }
                }
                None => out.fill(normalise(0)),
            }
            if flip {
                out.reverse();
            }
        }
    }
}

/// Exact sums of bytes and their squares, so the order of the images does not matter.
fn mean_and_std(spec: &Spec, split: &Split) -> (Vec<f32>, Vec<f32>) {
    let plane_len = spec.height * spec.width;
    let mut sums = vec![(0_u64, 0_u64); spec.channels];
    for image in split.images.chunks_exact(spec.image_len()) {
        for ((sum, squares), plane) in sums.iter_mut().zip(image.chunks_exact(plane_len)) {
            *sum += plane.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            *squares += plane.iter().map(|&byte| u64::from(byte).pow(2)).sum::<u64>();
        }
    }
    let n = (split.len() * plane_len).max(1) as f64;
    let max = f64::from(spec.max_value);
    sums.into_iter()
        .map(|(sum, squares)| {
            let mean = sum as f64 / n;
            let std = (squares as f64 / n - mean * mean).max(0.0).sqrt();
            let std = if std > 0.0 { std / max } else { 1.0 };
            ((mean / max) as f32, std as f32)
        })
        .unzip()
}
