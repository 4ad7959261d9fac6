//! Small data sets in every format of files that the loaders read. Their images have no symmetry, so a wrong order of rows,
//! columns or channels shows.

use experiments::problem::data::{Dataset, Hub, ImageData, ImageSpec, Split, cifar10, fashion_mnist};
use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write, path::Path};

/// Reads `dataset`, whose files have the numbers of images of `spec`, from the folder or the Hub.
pub fn load(dataset: Dataset, spec: &ImageSpec, dir: Option<&Path>, hub: &Hub) -> Result<ImageData, String> {
    let load = match dataset {
        Dataset::FashionMnist => fashion_mnist::load,
        Dataset::Cifar10 => cifar10::load,
        other => panic!("{other} has no files of images"),
    };
    load(spec, dir, hub).map_err(|error| error.to_string())
}

/// `images` images whose bytes come from a linear congruential generator, and labels that take every class.
pub fn split(spec: &ImageSpec, images: usize, seed: u32) -> Split {
    let mut state = seed;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Split {
        images: (0..images * spec.image_len()).map(|_| byte()).collect(),
        labels: (0..images).map(|i| ((3 * i + seed as usize) % spec.classes) as u8).collect(),
    }
}

/// Both splits, in the sizes that `spec` says.
pub fn splits(spec: &ImageSpec) -> (Split, Split) {
    (split(spec, spec.train, 1), split(spec, spec.test, 2))
}

/// CIFAR-10's binary files.
pub fn write_cifar10(dir: &Path, spec: &ImageSpec, train: &Split, test: &Split) {
    let mut records: Vec<u8> = Vec::new();
    for split in [train, test] {
        for (label, image) in split.labels.iter().zip(split.images.chunks(spec.image_len())) {
            records.push(*label);
            records.extend(image);
        }
    }
    let (train, test) = records.split_at(train.len() * (1 + spec.image_len()));
    for (i, batch) in train.chunks(train.len() / 5).enumerate() {
        fs::write(dir.join(format!("data_batch_{}.bin", i + 1)), batch).unwrap();
    }
    fs::write(dir.join("test_batch.bin"), test).unwrap();
}

/// An idx file: the magic number and the sizes, then the data.
pub fn idx(header: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_be_bytes()).collect();
    bytes.extend(data);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Fashion-MNIST's files: packed ones for the training split, and plain ones for the test split.
pub fn write_fashion_mnist(dir: &Path, spec: &ImageSpec, train: &Split, test: &Split) {
    let (rows, columns) = (spec.height as u32, spec.width as u32);
    for (split, part) in [(train, "train"), (test, "t10k")] {
        let n = split.len() as u32;
        let files = [
            ("images-idx3", idx(&[2051, n, rows, columns], &split.images)),
            ("labels-idx1", idx(&[2049, n], &split.labels)),
        ];
        for (kind, bytes) in files {
            let name = format!("{part}-{kind}-ubyte");
            if part == "train" {
                fs::write(dir.join(name + ".gz"), gzip(&bytes)).unwrap();
            } else {
                fs::write(dir.join(name), bytes).unwrap();
            }
        }
    }
}
