//! Fashion-MNIST: 70,000 grey pictures of clothes of 28 x 28 pixels in 10 classes (Xiao, Rasul and Vollgraf 2017,
//! arXiv:1708.07747).
//!
//! The four files are in MNIST's idx format: a magic number (2051 for images, 2049 for labels), the number of images
//! and, for images, of rows and of columns, all as big-endian 32-bit integers; then one byte per pixel or label.

use super::{
    error::DataError,
    file,
    images::{ImageData, ImageSpec, Split},
    published::Published,
    source::{Hub, Source},
    spec::{Defaults, Spec},
};
use std::path::Path;

/// What it is.
pub const SPEC: Spec = Spec {
    name: "fashion-mnist",
    doc: "pictures of 10 kinds of clothes, 28 x 28 grey",
    default_model: "cnn",
    defaults: Defaults::images(5, 64),
    images: Some(IMAGES),
    published: &PUBLISHED,
};

/// 60,000 and 10,000 images of 1 x 28 x 28.
pub const IMAGES: ImageSpec =
    ImageSpec { channels: 1, height: 28, width: 28, classes: 10, max_value: 255, train: 60_000, test: 10_000 };

const HUB: Source<2> = Source {
    repo: "zalando-datasets/fashion_mnist",
    files: ["fashion_mnist/train/0000.parquet", "fashion_mnist/test/0000.parquet"],
};

/// The files of each split together.
const PUBLISHED: [Published; 2] = [
    Published {
        name: "train-{images-idx3,labels-idx1}-ubyte",
        sha256: "6d226526ff970f03ea8725a39e125b1ab590f498a25f501e69a46359e7478773",
    },
    Published {
        name: "t10k-{images-idx3,labels-idx1}-ubyte",
        sha256: "c1f40a40017890ce0b14203aa6b8340d8bead8df69f0a9baba26c47b226338ba",
    },
];

/// The second and the third are where torchvision keeps it.
const SUBFOLDERS: [&str; 3] = ["fashion-mnist", "FashionMNIST/raw", "raw"];

/// The magic numbers: unsigned bytes, in three dimensions or in one.
const MAGIC_IMAGES: usize = 0x0803;
const MAGIC_LABELS: usize = 0x0801;

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

/// The training and the test split from `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`, or the same names without
/// `.gz` for files that are unpacked, in `dir` or one of its [`SUBFOLDERS`].
fn read_dir(spec: &ImageSpec, dir: &Path) -> Result<(Split, Split), DataError> {
    Ok((read_split(spec, dir, "train", spec.train)?, read_split(spec, dir, "t10k", spec.test)?))
}

fn read_split(spec: &ImageSpec, dir: &Path, part: &str, images: usize) -> Result<Split, DataError> {
    let open = |kind: &str| {
        let name = format!("{part}-{kind}-ubyte");
        file::find(dir, &SUBFOLDERS, &[&format!("{name}.gz"), &name])
    };
    let path = open("images-idx3")?;
    let pixels = read_idx(&path, &[MAGIC_IMAGES, images, spec.height, spec.width])?;
    let path = open("labels-idx1")?;
    let labels = read_idx(&path, &[MAGIC_LABELS, images])?;
    file::check_labels(&path, &labels, spec.classes)?;
    Ok(Split { images: pixels, labels })
}

/// What follows the header of an idx file, which must be `header`: the magic number, then the size of each dimension.
fn read_idx(path: &Path, header: &[usize]) -> Result<Vec<u8>, DataError> {
    let header_len = 4 * header.len();
    let len = header_len + header[1..].iter().product::<usize>();
    let mut bytes = file::read(path, len)?;
    let names = ["the magic number", "images", "rows", "columns"];
    for ((field, name), &expected) in bytes.chunks_exact(4).zip(names).zip(header) {
        let found = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        if found as usize != expected {
            return Err(DataError::file(path, format!("{expected} for {name}"), found));
        }
    }
    file::check_len(path, &bytes, len)?;
    bytes.drain(..header_len);
    Ok(bytes)
}
