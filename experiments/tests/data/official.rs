//! The official files, where the variable `DESCENT_DATA` names their folder.

use experiments::problem::data::{Data, Dataset, Hub, ImageData};
use indicatif::MultiProgress;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder, or a line that says what is skipped.
pub fn folder(test: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("DESCENT_DATA").map(PathBuf::from);
    if dir.is_none() {
        println!("skipped: {test} (DESCENT_DATA names no folder)");
    }
    dir
}

/// The official images.
pub fn images(dataset: Dataset, dir: &Path) -> ImageData {
    match dataset.load(Some(dir), None, &Hub::new(&MultiProgress::new())).unwrap() {
        Data::Images(data) => data,
        Data::Text(data) => panic!("{} is text", data.name),
    }
}

fn per_class(labels: &[u8]) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for &label in labels {
        counts[usize::from(label)] += 1;
    }
    counts
}

#[test]
fn official_files_have_their_published_statistics() {
    let Some(dir) = folder("statistics of the official files") else {
        return;
    };
    // The usual constants for normalisation, and the first labels and pixels of the files.
    for (dataset, n, mean, std, labels) in [
        (Dataset::FashionMnist, 60_000, vec![0.2860], vec![0.3530], [9, 0, 0, 3]),
        (Dataset::Cifar10, 50_000, vec![0.4914, 0.4822, 0.4465], vec![0.2470, 0.2435, 0.2616], [6, 9, 9, 4]),
    ] {
        let data = images(dataset, &dir);
        assert_eq!((data.train.len(), data.test.len()), (n, 10_000));
        for split in [&data.train, &data.test] {
            let len = data.channels * data.height * data.width;
            assert_eq!(split.images.len(), split.len() * len);
            assert_eq!(per_class(&split.labels), [split.len() / 10; 10]);
        }
        assert_eq!(data.train.labels[..4], labels);
        for (found, expected) in [(&data.mean, mean), (&data.std, std)] {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{dataset}: {found} {expected}");
            }
        }
    }
}

/// The data as it was published has no file that differs, one changed byte is told by its file's name, and the hash over all
/// changes with it.
#[test]
fn published_files_are_known_by_their_checksums() {
    let none = Hub::new(&MultiProgress::new());
    for dataset in [Dataset::Digits, Dataset::Language] {
        let data = dataset.load(None, None, &none).unwrap();
        assert_eq!(dataset.fingerprint(&data).differs, [""; 0], "{dataset}");
    }
    let Some(dir) = folder("checksums of the official files") else {
        return;
    };
    for (dataset, file, at, name) in [
        (Dataset::Cifar10, "cifar-10-batches-bin/data_batch_2.bin", 1_000, "data_batch_2.bin"),
        (Dataset::Cifar10, "cifar-10-batches-bin/test_batch.bin", 30_000_000, "test_batch.bin"),
        (Dataset::FashionMnist, "fashion-mnist/t10k-labels-idx1-ubyte.gz", 20, "t10k-{images-idx3,labels-idx1}-ubyte"),
        (Dataset::Tinyshakespeare, "tinyshakespeare.txt", 99, "tinyshakespeare.txt"),
    ] {
        let right = dataset.load(Some(&dir), None, &none).unwrap();
        let right = dataset.fingerprint(&right);
        assert_eq!(right.differs, [""; 0], "{dataset}");

        // The same folder, with one file that differs in a byte.
        let changed = tempfile::tempdir().unwrap();
        let below = changed.path().join(Path::new(file).parent().unwrap());
        fs::create_dir_all(&below).unwrap();
        for other in fs::read_dir(dir.join(file).parent().unwrap()).unwrap() {
            let other = other.unwrap();
            if other.path().is_file() && !other.path().ends_with(Path::new(file).file_name().unwrap()) {
                fs::hard_link(other.path(), below.join(other.file_name()))
                    .or_else(|_| fs::copy(other.path(), below.join(other.file_name())).map(|_| ()))
                    .unwrap();
            }
        }
        let bytes = fs::read(dir.join(file)).unwrap();
        let (mut bytes, to) = match file.strip_suffix(".gz") {
            Some(plain) => {
                let mut unpacked = Vec::new();
                io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut unpacked).unwrap();
                (unpacked, plain)
            }
            None => (bytes, file),
        };
        // A letter stays one, and a label one of ten.
        bytes[at] = if bytes[at] == 0 { 1 } else { bytes[at] - 1 };
        fs::write(changed.path().join(to), bytes).unwrap();
        let other = dataset.load(Some(changed.path()), None, &none).unwrap();
        let other = dataset.fingerprint(&other);
        assert_eq!(other.differs, [name], "{dataset}");
        assert_ne!(other.sha256, right.sha256);
    }
}
