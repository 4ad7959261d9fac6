//! CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in 10 classes (Krizhevsky 2009, "Learning Multiple Layers of
//! Features from Tiny Images").
//!
//! The files of the [binary version](https://www.cs.toronto.edu/~kriz/cifar.html) hold records of 3,073 bytes: the
//! label, then 32 rows of 32 pixels of red, then of green, then of blue.

use super::{
    error::DataError,
    file,
    images::{ImageData, ImageSpec, Split},
    published::Published,
    source::{Hub, Source},
    spec::{Defaults, Spec},
};
use crate::config::augmentation::Augmentation;
use std::path::Path;

/// What it is.
pub const SPEC: Spec = Spec {
    name: "cifar10",
    doc: "photographs of 10 things, 32 x 32 colour",
    default_model: "resnet20",
    defaults: Defaults { augment: Augmentation::Random, ..Defaults::images(10, 128) },
    images: Some(IMAGES),
    published: &PUBLISHED,
};

/// 50,000 and 10,000 images of 3 x 32 x 32.
pub const IMAGES: ImageSpec =
    ImageSpec { channels: 3, height: 32, width: 32, classes: 10, max_value: 255, train: 50_000, test: 10_000 };

const HUB: Source<2> =
    Source { repo: "cifar10", files: ["plain_text/train/0000.parquet", "plain_text/test/0000.parquet"] };

const SUBFOLDER: &str = "cifar-10-batches-bin";

/// The training images in five files, then the test images.
const PUBLISHED: [Published; 6] = [
    Published { name: "data_batch_1.bin", sha256: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5" },
    Published { name: "data_batch_2.bin", sha256: "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed" },
    Published { name: "data_batch_3.bin", sha256: "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67" },
    Published { name: "data_batch_4.bin", sha256: "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48" },
    Published { name: "data_batch_5.bin", sha256: "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add" },
    Published { name: "test_batch.bin", sha256: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b" },
];

/// Reads the data set from the folder `dir`, or from the Hub where there is none. Its images are as `spec` says.
///
/// # Errors
/// As [`Dataset::load`](super::dataset::Dataset::load).
pub fn load(spec: &ImageSpec, dir: Option<&Path>, hub: &Hub) -> Result<ImageData, DataError> {
    let splits = match dir {
        Some(dir) => read_dir(spec, dir)?,
        None => hub.images(&HUB, spec)?,
    };
    ImageData::new(SPEC.name, spec, &PUBLISHED, splits)
}

/// The training and the test split from `data_batch_1.bin` to `data_batch_5.bin`, a fifth of the training images each,
/// and `test_batch.bin`, in `dir` or its subfolder `cifar-10-batches-bin`.
fn read_dir(spec: &ImageSpec, dir: &Path) -> Result<(Split, Split), DataError> {
    let mut train = Split::with_capacity(spec.train, spec.image_len());
    let [train_files @ .., test_file] = &PUBLISHED;
    for file in train_files {
        read_batch(spec, dir, file.name, spec.train / train_files.len(), &mut train)?;
    }
    let mut test = Split::with_capacity(spec.test, spec.image_len());
    read_batch(spec, dir, test_file.name, spec.test, &mut test)?;
    Ok((train, test))
}

fn read_batch(spec: &ImageSpec, dir: &Path, name: &str, images: usize, split: &mut Split) -> Result<(), DataError> {
    let path = file::find(dir, &[SUBFOLDER], &[name]).map_err(|error| python_version(dir).unwrap_or(error))?;
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

/// What is wrong with a folder that has the data set as Python objects.
fn python_version(dir: &Path) -> Option<DataError> {
    let names = ["cifar-10-batches-py", "data_batch_1", "cifar-10-python.tar.gz"];
    let found = names.iter().find(|name| dir.join(name).exists())?;
    let expected = "CIFAR-10's binary version (data_batch_1.bin and so on)";
    let found = format!(
        "`{found}`, the Python version, whose pickled objects are not read: \
         get cifar-10-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html) and unpack it there"
    );
    Some(DataError::file(dir, expected, found))
}
