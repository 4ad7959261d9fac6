//! Handwritten digits: 1,797 images of 8 x 8 pixels with values 0 to 16, embedded in the program.
//!
//! It is the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine Learning
//! Repository, licence CC BY 4.0), which scikit-learn ships as `load_digits`, in that order.
//!
//! The split is fixed. Of every five images of a class, in the file's order, the third is for testing, so every class
//! has a fifth of its images there, rounded to the nearest: 1,438 images for training and 359 for testing. Both parts
//! keep the file's order, and hold digits by the same writers.

use super::{
    images::{ImageData, ImageSpec, Split},
    published::Published,
    spec::{Defaults, Spec},
};
use flate2::read::GzDecoder;

/// What it is.
pub const SPEC: Spec = Spec {
    name: "digits",
    doc: "handwritten digits, 8 x 8 grey (embedded)",
    default_model: "mlp",
    defaults: Defaults::images(40, 32),
    images: Some(IMAGES),
    published: &PUBLISHED,
};

/// 1,438 and 359 images of 1 x 8 x 8.
pub const IMAGES: ImageSpec =
    ImageSpec { channels: 1, height: 8, width: 8, classes: 10, max_value: 16, train: 1438, test: 359 };

const PUBLISHED: [Published; 2] = [
    Published { name: "train", sha256: "16895b6a7666c045bdcaab92c902c472635e8969ccbbb52be633370a5142e317" },
    Published { name: "test", sha256: "d74b2de3eccc81b1fc2fb917c1123e01fd5cdcb5536f707a9f877e689a426158" },
];

const CSV: &[u8] = include_bytes!("../../../data/digits.csv.gz");

/// Unpacks the data set.
pub fn load() -> ImageData {
    let mut train = Split::with_capacity(IMAGES.train, IMAGES.image_len());
    let mut test = Split::with_capacity(IMAGES.test, IMAGES.image_len());
    let mut seen = [0; IMAGES.classes];
    let mut rows = csv::ReaderBuilder::new().has_headers(false).from_reader(GzDecoder::new(CSV));
    for row in rows.deserialize::<Vec<u8>>() {
        let mut pixels = row.expect("the embedded file has rows of bytes");
        let label = pixels.pop().expect("a label ends each row");
        let seen = &mut seen[usize::from(label)];
        let split = if *seen % 5 == 2 { &mut test } else { &mut train };
        *seen += 1;
        split.images.extend(pixels);
        split.labels.push(label);
    }
    ImageData::new(SPEC.name, &IMAGES, &PUBLISHED, (train, test)).expect("the splits differ")
}
