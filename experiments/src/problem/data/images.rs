//! Images with integer labels, held as bytes and normalised batch by batch.

use super::{
    error::DataError,
    published::{Published, sha256},
};
use crate::random::{Purpose, stream};
use multiversion::multiversion;
use rand::seq::SliceRandom;

/// What the images of a data set are, and what its files must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSpec {
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

impl ImageSpec {
    /// Bytes of one image.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
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
    /// By the name of each file, in order: the SHA-256 of the records that it holds, which are a label and its image. The last file
    /// is the test split; the others have equal shares of the training split.
    pub files: Vec<(&'static str, String)>,
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

    pub(super) fn with_capacity(images: usize, image_len: usize) -> Self {
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
    /// What lies outside of the image: its mirror image, without its edge twice, as NumPy's `reflect`; else black. The window must lie no
    /// farther off than the image is long, less one.
    pub reflect: bool,
}

/// Images that hyperparameters are judged by, where there are enough.
const HELD_OUT: usize = 1_000;

impl ImageData {
    /// # Errors
    /// When two files hold the same: one was copied over the other.
    pub(super) fn new(
        name: &'static str,
        spec: &ImageSpec,
        published: &[Published],
        (train, test): (Split, Split),
    ) -> Result<Self, DataError> {
        let (mean, std) = mean_and_std(spec, &train);
        let (last, others) = published.split_last().expect("a data set has a test split");
        let share = train.len().div_ceil(others.len().max(1)).max(1);
        let shares = train.images.chunks(share * spec.image_len()).zip(train.labels.chunks(share));
        let records = others.iter().zip(shares).chain([(last, (&test.images[..], &test.labels[..]))]);
        let mut files: Vec<(&str, String)> = Vec::new();
        for (file, (images, labels)) in records {
            let images = images.chunks_exact(spec.image_len());
            let sha256 = sha256(labels.chunks(1).zip(images).flat_map(|(label, image)| [label, image]));
            if let Some((other, _)) = files.iter().find(|(_, known)| *known == sha256) {
                return Err(DataError::Same { first: other.to_string(), second: file.name.to_owned() });
            }
            files.push((file.name, sha256));
        }
        Ok(Self {
            files,
            name,
            channels: spec.channels,
            height: spec.height,
            width: spec.width,
            classes: spec.classes,
            max_value: spec.max_value,
            train,
            test,
            mean,
            std,
        })
    }

    /// How many images [`split_for_tuning`](Self::split_for_tuning) trains on.
    pub fn len_for_tuning(&self) -> usize {
        let len = self.train.len();
        len - len.div_ceil(10).max(HELD_OUT.min(len / 3))
    }

    /// The same kind of data for choosing hyperparameters: a fixed part of the training images is for testing, the others are for
    /// training. The part is a tenth, but 1,000 images where that is more, and at most a third: a loss over fewer depends more on which
    /// they are than on the hyperparameters. The test images are in neither, and the constants of the normalisation stay.
    pub fn split_for_tuning(&self) -> Self {
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut stream(0, Purpose::Tuning, 0));
        let (train, test) = order.split_at(self.len_for_tuning());
        let image_len = self.channels * self.height * self.width;
        let part = |indices: &[usize]| {
            let mut part = Split::with_capacity(indices.len(), image_len);
            for &index in indices {
                part.images.extend_from_slice(&self.train.images[index * image_len..][..image_len]);
                part.labels.push(self.train.labels[index]);
            }
            part
        };
        Self {
            train: part(train),
            test: part(test),
            mean: self.mean.clone(),
            std: self.std.clone(),
            files: self.files.clone(),
            ..*self
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
        let image_len = self.channels * self.height * self.width;
        let max_value = f32::from(self.max_value);
        let affine = self.mean.iter().zip(&self.std).map(|(mean, std)| (1.0 / (max_value * std), -mean / std));
        let affine: Vec<(f32, f32)> = affine.collect();
        let mut pixels = vec![0.0; indices.len() * image_len];
        for (i, (out, &index)) in pixels.chunks_exact_mut(image_len).zip(indices).enumerate() {
            let image = &split.images[index * image_len..][..image_len];
            let augment = augment.map_or(Augment::default(), |augment| augment[i]);
            write_image(out, image, (self.height, self.width), augment, &affine);
        }
        let labels = indices.iter().map(|&index| split.labels[index].into()).collect();
        (pixels, labels)
    }
}

/// Writes `byte * scale + shift` with the scale and shift of each channel, in one pass over each row: the bytes of the image that
/// are in the window, from the right where it is mirrored, and black on both sides of them.
#[multiversion(targets("x86_64+avx2"))]
fn write_image(
    out: &mut [f32],
    image: &[u8],
    (height, width): (usize, usize),
    Augment { dy, dx, flip, reflect }: Augment,
    affine: &[(f32, f32)],
) {
    // Columns of the window to the left and to the right of the image, of which it lacks as many on the other side.
    let [left, right] = [-isize::from(dx), dx.into()].map(|columns| columns.clamp(0, width as isize) as usize);
    let (before, after) = if flip { (right, left) } else { (left, right) };
    let planes = out.chunks_exact_mut(height * width).zip(image.chunks_exact(height * width));
    for ((out, plane), &(scale, shift)) in planes.zip(affine) {
        let normalise = |byte: u8| f32::from(byte) * scale + shift;
        let black = normalise(0);
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let row = match y.checked_add_signed(dy.into()).filter(|&row| row < height) {
                Some(row) => row,
                None if reflect => reflected(y as isize + isize::from(dy), height),
                None => {
                    out.fill(black);
                    continue;
                }
            };
            if reflect {
                for place in (0..before).chain(width - after..width) {
                    let column = if flip { width - 1 - place } else { place } as isize + isize::from(dx);
                    out[place] = normalise(plane[row * width + reflected(column, width)]);
                }
            } else {
                out[..before].fill(black);
                out[width - after..].fill(black);
            }
            let out = out[before..width - after].iter_mut();
            let bytes = &plane[row * width..][right..width - left];
            if flip {
                out.rev().zip(bytes).for_each(|(out, &byte)| *out = normalise(byte));
            } else {
                out.zip(bytes).for_each(|(out, &byte)| *out = normalise(byte));
            }
        }
    }
}

/// The place in 0..len that a place outside of it shows.
fn reflected(place: isize, len: usize) -> usize {
    let last = len as isize - 1;
    (if place > last { 2 * last - place } else { place.abs() }) as usize
}

/// Exact sums of bytes and their squares, so the order of the images does not matter.
fn mean_and_std(spec: &ImageSpec, split: &Split) -> (Vec<f32>, Vec<f32>) {
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
