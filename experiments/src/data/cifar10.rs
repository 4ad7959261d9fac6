//! CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009, "Learning Multiple Layers of
//! Features from Tiny Images").
//!
//! The files of the [binary version](https://www.cs.toronto.edu/~kriz/cifar.html) hold records of 3,073 bytes: the
//! label, then 32 rows of 32 pixels of red, then of green, then of blue.

use super::{DataError, Hub, ImageData, ImageSpec, Spec, Split, file, hub};
use std::path::Path;

/// What it is.
pub const SPEC: Spec = Spec {
    name: "cifar10",
    doc: "photographs of 10 things, 32 x 32 colour",
    default_model: "resnet20",
    images: Some(IMAGES),
};

/// 50,000 and 10,000 images of 3 x 32 x 32.
pub const IMAGES: ImageSpec =
    ImageSpec { channels: 3, height: 32, width: 32, classes: 10, max_value: 255, train: 50_000, test: 10_000 };

const HUB: hub::Source<2> =
    hub::Source { repo: "cifar10", files: ["plain_text/train/0000.parquet", "plain_text/test/0000.parquet"] };

const SUBFOLDER: &str = "cifar-10-batches-bin";

const TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];

/// Reads the data set from the folder `dir`, or from the Hub where there is none. Its images are as `spec` says.
///
/// # Errors
/// As [`Dataset::load`](super::Dataset::load).
pub fn load(spec: &ImageSpec, dir: Option<&Path>, hub: &Hub) -> Result<ImageData, DataError> {
    let splits = match dir {
        Some(dir) => read_dir(spec, dir)?,
        None => hub.images(&HUB, spec)?,
    };
    Ok(ImageData::new(SPEC.name, spec, splits))
}

/// The training and the test split from `data_batch_1.bin` to `data_batch_5.bin`, a fifth of the training images each,
/// and `test_batch.bin`, in `dir` or its subfolder `cifar-10-batches-bin`.
fn read_dir(spec: &ImageSpec, dir: &Path) -> Result<(Split, Split), DataError> {
    let mut train = Split::with_capacity(spec.train, spec.image_len());
    for name in TRAIN {
        read_batch(spec, dir, name, spec.train / TRAIN.len(), &mut train)?;
    }
    let mut test = Split::with_capacity(spec.test, spec.image_len());
    read_batch(spec, dir, "test_batch.bin", spec.test, &mut test)?;
    Ok((train, test))
}

fn read_batch(spec: &ImageSpec, dir: &Path, name: &str, images: usize, split: &mut Split) -> Result<(), DataError> {
    let path = file::find(dir, SUBFOLDER, &[name])?;
    let record_len = 1 + spec.image_len();
    let bytes = file::read(&path, images * record_len)?;
    file::check_len(&path, &bytes, images * record_len)?;
    let first = split.len();
    for record in bytes.chunks_exact(record_len) {
        split.labels.push(record[0]);
        split.images.extend_from_slice(&record[1..]);
    }
    file::check_labels(&path, &split.labels[first..], spec.classes)
}
