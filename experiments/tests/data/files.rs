//! Data sets from folders: right files, and every way in which files can be wrong.

use crate::synthetic::{self, gzip, idx, splits, write_cifar10, write_fashion_mnist};
use experiments::problem::data::{Dataset, Hub, ImageData, ImageSpec, cifar10, fashion_mnist};
use indicatif::MultiProgress;
use std::{fs, path::Path};

const FASHION: ImageSpec = ImageSpec { train: 7, test: 4, ..fashion_mnist::IMAGES };
const CIFAR: ImageSpec = ImageSpec { train: 10, test: 3, ..cifar10::IMAGES };

fn load(dataset: Dataset, spec: &ImageSpec, dir: &Path) -> Result<ImageData, String> {
    synthetic::load(dataset, spec, Some(dir), &Hub::new(&MultiProgress::new()))
}

fn write(dataset: Dataset, dir: &Path) -> ImageSpec {
    match dataset {
        Dataset::FashionMnist => {
            let (train, test) = splits(&FASHION);
            write_fashion_mnist(dir, &FASHION, &train, &test);
            FASHION
        }
        _ => {
            let (train, test) = splits(&CIFAR);
            write_cifar10(dir, &CIFAR, &train, &test);
            CIFAR
        }
    }
}

#[test]
fn files_are_read_from_the_folder_or_its_subfolder() {
    for (dataset, subfolders) in [
        (Dataset::FashionMnist, &["", "fashion-mnist", "FashionMNIST/raw", "raw"][..]),
        (Dataset::Cifar10, &["", "cifar-10-batches-bin"]),
    ] {
        for place in subfolders {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join(place);
            fs::create_dir_all(&folder).unwrap();
            let spec = write(dataset, &folder);
            let data = load(dataset, &spec, dir.path()).unwrap();
            assert_eq!((data.train, data.test), splits(&spec), "{dataset} in {place:?}");
        }
    }
}

#[test]
fn official_sizes_are_demanded() {
    for (dataset, line) in [
        (Dataset::FashionMnist, "expected 60000 for images, found 7"),
        (Dataset::Cifar10, "expected 30730000 bytes, found 6146"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dataset, dir.path());
        let error = dataset.load(Some(dir.path()), None, &Hub::new(&MultiProgress::new())).unwrap_err().to_string();
        assert!(error.ends_with(line), "{error}");
    }
}

/// A file to write in the place of the right one (or nothing, to remove that), and how the error must continue after
/// the file's path.
type Fault = (&'static str, Option<Vec<u8>>, &'static str);

#[test]
fn wrong_files_are_errors_of_one_line_with_name_expected_and_found() {
    let (train, test) = splits(&CIFAR);
    let mut records = [&[test.labels[0]], &test.images[..3072]].concat();
    records.extend([&[10], &test.images[3072..6144]].concat());
    records.extend([&[test.labels[2]], &test.images[6144..]].concat());
    let batch = [&[train.labels[0]], &train.images[..3072], &[train.labels[1]], &train.images[3072..6144]].concat();
    let cifar: Vec<Fault> = vec![
        ("data_batch_3.bin", None, ": expected a file here or in"),
        ("test_batch.bin", None, ": expected a file here or in"),
        ("data_batch_1.bin", Some(batch[1..].to_vec()), ": expected 6146 bytes, found 6145"),
        ("data_batch_5.bin", Some([&batch[..], &[0]].concat()), ": expected 6146 bytes, found more"),
        ("data_batch_5.bin", Some(vec![]), ": expected 6146 bytes, found 0"),
        ("test_batch.bin", Some(records), ": expected labels 0 to 9, found 10 for image 1"),
    ];

    let (train, test) = splits(&FASHION);
    let right = idx(&[2051, 7, 28, 28], &train.images);
    let packed = gzip(&right);
    let mut flipped = packed.clone();
    let crc = flipped.len() - 8;
    flipped[crc] ^= 1;
    let with_label_12 = [&[12], &train.labels[1..]].concat();
    let (images, labels) = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz");
    let plain = "t10k-images-idx3-ubyte";
    let fashion: Vec<Fault> = vec![
        (images, None, ": expected a file (or train-images-idx3-ubyte) here or in"),
        (labels, None, ": expected a file (or train-labels-idx1-ubyte) here or in"),
        (
            images,
            Some(right.clone()),
            ": expected 5504 readable bytes, found an error after 0 bytes: invalid gzip header",
        ),
        (images, Some(vec![]), ": expected 5504 readable bytes, found an error"),
        (images, Some(packed[..packed.len() / 2].to_vec()), ": expected 5504 readable bytes, found an error"),
        (images, Some(packed[..packed.len() - 1].to_vec()), ": expected 5504 readable bytes, found an error"),
        (images, Some(flipped), ": expected 5504 readable bytes, found an error"),
        (
            images,
            Some([&packed[..], b"garbage that follows"].concat()),
            ": expected 5504 readable bytes, found an error",
        ),
        (images, Some(gzip(&[&right[..], &[0]].concat())), ": expected 5504 bytes, found more"),
        (images, Some(gzip(&right[..5000])), ": expected 5504 bytes, found 5000"),
        (images, Some(gzip(&right[..10])), ": expected 5504 bytes, found 10"),
        (
            images,
            Some(gzip(&idx(&[2049, 7, 28, 28], &train.images))),
            ": expected 2051 for the magic number, found 2049",
        ),
        (images, Some(gzip(&idx(&[2051, 8, 28, 28], &train.images))), ": expected 7 for images, found 8"),
        (images, Some(gzip(&idx(&[2051, 7, 32, 28], &train.images))), ": expected 28 for rows, found 32"),
        (images, Some(gzip(&idx(&[2051, 7, 28, 27], &train.images))), ": expected 28 for columns, found 27"),
        (labels, Some(gzip(&idx(&[2051, 7], &train.labels))), ": expected 2049 for the magic number, found 2051"),
        (labels, Some(gzip(&idx(&[2049, 7], &with_label_12))), ": expected labels 0 to 9, found 12 for image 0"),
        (plain, Some(gzip(&idx(&[2051, 4, 28, 28], &test.images))), ": expected 2051 for the magic number, found"),
        (plain, Some(idx(&[2051, 4, 28, 28], &test.images[1..])), ": expected 3152 bytes, found 3151"),
    ];

    for (dataset, faults) in [(Dataset::Cifar10, cifar), (Dataset::FashionMnist, fashion)] {
        for (name, content, expected) in faults {
            let dir = tempfile::tempdir().unwrap();
            let spec = write(dataset, dir.path());
            let path = dir.path().join(name);
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = load(dataset, &spec, dir.path()).unwrap_err();
            let start = format!("{}{expected}", path.display());
            assert!(error.starts_with(&start), "{error}\nshould start with\n{start}");
            assert!(!error.contains('\n') && error.contains(", found "), "{error}");
        }
    }
}

#[test]
fn wrong_folders_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, found) in [(dir.path().join("missing"), "nothing"), (file, "something else")] {
        for (dataset, spec) in [(Dataset::Cifar10, CIFAR), (Dataset::FashionMnist, FASHION)] {
            let error = load(dataset, &spec, &path).unwrap_err();
            assert_eq!(error, format!("{}: expected a folder, found {found}", path.display()));
        }
    }
    // A folder in the place of a file.
    let spec = write(Dataset::Cifar10, dir.path());
    let path = dir.path().join("data_batch_1.bin");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = load(Dataset::Cifar10, &spec, dir.path()).unwrap_err();
    let start = format!("{}: expected 6146 readable bytes, found an error", path.display());
    assert!(error.starts_with(&start), "{error}");
}

/// By hand: `cp test_batch.bin data_batch_1.bin`.
#[test]
fn a_file_that_is_a_copy_of_another_is_an_error_that_names_both() {
    let spec = ImageSpec { train: 10, test: 2, ..CIFAR };
    let dir = tempfile::tempdir().unwrap();
    let (train, test) = splits(&spec);
    for (from, to) in [("test_batch.bin", "data_batch_1.bin"), ("data_batch_2.bin", "data_batch_5.bin")] {
        write_cifar10(dir.path(), &spec, &train, &test);
        fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
        let error = load(Dataset::Cifar10, &spec, dir.path()).unwrap_err();
        let [first, second] = if to < from { [to, from] } else { [from, to] };
        assert_eq!(error, format!("{first} and {second} hold the same images: one is a copy of the other"));
    }
}

#[test]
fn a_form_that_is_not_read_is_named_with_what_to_do() {
    for (dataset, spec, there, expected) in [
        (
            Dataset::Cifar10,
            CIFAR,
            "cifar-10-binary.tar.gz",
            "only the archive cifar-10-binary.tar.gz: unpack it there, with `tar -xf` or `unzip`",
        ),
        (Dataset::FashionMnist, FASHION, "clothes.zip", "only the archive clothes.zip: unpack it there"),
        (Dataset::Cifar10, CIFAR, "cifar-10-python.tar.gz", "`cifar-10-python.tar.gz`, the Python version, whose"),
        (Dataset::Cifar10, CIFAR, "data_batch_1", "`data_batch_1`, the Python version, whose pickled objects are not"),
        (Dataset::Cifar10, CIFAR, "cifar-10-batches-py", "unpack it there"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(there), "").unwrap();
        let error = load(dataset, &spec, dir.path()).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        if there.contains(".tar") {
            let error = load(dataset, &spec, &dir.path().join(there)).unwrap_err();
            assert!(error.ends_with("expected a folder, found an archive: unpack it, and give its folder"), "{error}");
        }
    }
}
