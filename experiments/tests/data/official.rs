//! The official files, where the variable `DESCENT_DATA` names their folder.

use experiments::data::{Data, Dataset, ImageData};
use indicatif::MultiProgress;
use std::path::{Path, PathBuf};

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
    match dataset.load(Some(dir), None, &MultiProgress::new()).unwrap() {
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
