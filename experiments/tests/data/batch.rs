//! The embedded digits, names, and what a batch holds.

use experiments::problem::data::{
    Augment, Data, Dataset, Hub, ImageData, ImageSpec, Kind, Split, TextData, cifar10, digits,
};
use indicatif::MultiProgress;

#[test]
fn digits_are_scikit_learns_and_split_by_class() {
    let digits = digits::load();
    let shape = (digits.channels, digits.height, digits.width, digits.classes);
    assert_eq!(shape, (1, 8, 8, 10));
    assert_eq!((digits.train.len(), digits.test.len()), (1438, 359));
    // sklearn.datasets.load_digits: np.bincount(target), data.sum(), data[0, :8]
    let classes = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
    let mut sum = 0;
    for split in [&digits.train, &digits.test] {
        assert_eq!(split.images.len(), split.len() * 64);
        assert!(split.images.iter().all(|&value| value <= 16));
        sum += split.images.iter().map(|&v| u32::from(v)).sum::<u32>();
    }
    assert_eq!(sum, 561_718);
    assert_eq!(digits.train.images[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
    let count = |split: &Split, class| split.labels.iter().filter(|&&l| l == class).count();
    for (class, n) in (0..).zip(classes) {
        let test = count(&digits.test, class);
        assert_eq!(count(&digits.train, class) + test, n);
        assert_eq!(test, (n as f64 / 5.0).round() as usize, "class {class}");
    }
    let data = Dataset::Digits.load(None, None, &Hub::new(&MultiProgress::new())).unwrap();
    assert_eq!((data.kind(), data.name(), data.classes(), data.floor()), (Kind::Images, "digits", 10, None));
    assert_eq!((data.train_len(), data.test_len()), (1438, 359));
    assert_eq!(data, Data::Images(digits));
}

#[test]
fn a_data_set_is_found_by_its_name_only() {
    for dataset in Dataset::ALL {
        assert_eq!(dataset.to_string().parse::<Dataset>().unwrap(), dataset);
        let name = serde_json::to_string(&dataset).unwrap();
        assert_eq!(name, format!("\"{dataset}\""));
    }
    let known = "(known: digits, fashion-mnist, cifar10, language, tinyshakespeare, text)";
    for (name, hint) in [
        ("cifar-10", ": did you mean `cifar10`?"),
        ("fashion_mnist", ": did you mean `fashion-mnist`?"),
        ("digit", ": did you mean `digits`?"),
        ("imagenet", ""),
        ("", ""),
    ] {
        let error = name.parse::<Dataset>().unwrap_err().to_string();
        assert_eq!(error, format!("unknown data set `{name}`{hint} {known}"));
    }
}

/// The mean and the standard deviation of a batch of the whole training split are 0 and 1 per channel.
#[test]
fn a_batch_of_everything_is_standardised() {
    let colour = synthetic_cifar10(50);
    for data in [digits::load(), colour] {
        let all: Vec<_> = (0..data.train.len()).collect();
        let (pixels, labels) = data.batch(&data.train, &all, None);
        assert_eq!(labels.len(), all.len());
        let plane = data.height * data.width;
        for channel in 0..data.channels {
            let values =
                || pixels.chunks(plane).skip(channel).step_by(data.channels).flatten().map(|&value| f64::from(value));
            let n = values().count() as f64;
            let mean = values().sum::<f64>() / n;
            let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            assert!(mean.abs() < 1e-6, "{} mean {mean}", data.name);
            assert!((variance - 1.0).abs() < 1e-6, "{} variance {variance}", data.name);
        }
    }
}

/// Every augmentation against the definition: pad (with black, or the mirror image), cut, mirror, scale, normalise.
#[test]
fn a_batch_is_what_its_definition_says() {
    let data = synthetic_cifar10(20);
    let (c, h, w) = (data.channels, data.height as i32, data.width as i32);
    let mut cases = vec![None];
    for (dy, dx) in [(0, 0), (4, -4), (-4, 4), (1, 0), (0, -3), (31, 31), (-32, 0), (0, 33), (-128, 127)] {
        cases.extend([false, true].map(|flip| Some(Augment { dy, dx, flip, reflect: false })));
    }
    for (dy, dx) in [(0, 0), (2, -2), (-2, 2), (1, 0), (0, -1), (31, -31)] {
        cases.extend([false, true].map(|flip| Some(Augment { dy, dx, flip, reflect: true })));
    }
    let mirror = |place: i32, len: i32| if place < 0 { -place } else { place.min(2 * (len - 1) - place) };
    for augment in cases {
        let indices = [7, 0, 7];
        let list = augment.map(|augment| vec![augment; indices.len()]);
        let (pixels, labels) = data.batch(&data.train, &indices, list.as_deref());
        assert_eq!(labels, indices.map(|i| u32::from(data.train.labels[i])));
        let Augment { dy, dx, flip, reflect } = augment.unwrap_or_default();
        let mut pixel = pixels.into_iter();
        for index in indices {
            for channel in 0..c {
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    let x = if flip { w - 1 - x } else { x };
                    let (y, x) = (y + i32::from(dy), x + i32::from(dx));
                    let (y, x) = if reflect { (mirror(y, h), mirror(x, w)) } else { (y, x) };
                    let inside = (0..h).contains(&y) && (0..w).contains(&x);
                    let at = ((index * c + channel) * data.height) as i32 + y;
                    let byte = if inside { data.train.images[(at * w + x) as usize] } else { 0 };
                    let expected =
                        (f64::from(byte) / 255.0 - f64::from(data.mean[channel])) / f64::from(data.std[channel]);
                    let found = f64::from(pixel.next().unwrap());
                    assert!((found - expected).abs() < 1e-6, "{augment:?}: {found} {expected}");
                }
            }
        }
        assert_eq!(pixel.next(), None);
    }
}

/// A channel without any contrast must not divide by zero.
#[test]
fn a_constant_channel_becomes_zero() {
    let mut data = synthetic_cifar10(10);
    let plane = data.height * data.width;
    for image in data.train.images.chunks_mut(3 * plane) {
        image[plane..2 * plane].fill(77);
    }
    let data = reload(&data.train, &data.test);
    assert_eq!(data.std[1], 1.0);
    let (pixels, _) = data.batch(&data.train, &[3], None);
    assert!(pixels[plane..2 * plane].iter().all(|value| value.abs() < 1e-6));
}

/// Two thirds and one third of few training images, a tenth of many, each image once, with its label; the same ones each time.
#[test]
fn tuning_sees_training_images_only() {
    let digits = digits::load();
    let Data::Images(tuning) = Data::Images(digits.clone()).split_for_tuning() else { panic!("images stay images") };
    assert_eq!((tuning.train.len(), tuning.test.len()), (959, 479));
    // As many passes over fewer.
    assert_eq!(Data::Images(digits.clone()).steps_for_tuning(1_438), 959);
    for (images, held_out) in [(3_000, 1_000), (10_000, 1_000), (50_000, 5_000)] {
        assert_eq!(synthetic_cifar10(images).len_for_tuning(), images - held_out);
    }
    assert_eq!(tuning, digits.split_for_tuning());
    let pairs = |split: &Split| {
        let pairs = split.images.chunks(64).zip(&split.labels).map(|(image, &label)| (image.to_vec(), label));
        pairs.collect::<Vec<_>>()
    };
    let (mut parts, mut all) = ([pairs(&tuning.train), pairs(&tuning.test)].concat(), pairs(&digits.train));
    assert_ne!(parts, all, "a fixed order, not the file's");
    parts.sort_unstable();
    all.sort_unstable();
    assert_eq!(parts, all);
    assert_eq!((&tuning.mean, &tuning.std, tuning.classes), (&digits.mean, &digits.std, 10));

    let text = TextData::from_text("text", &"ab".repeat(500)).unwrap();
    let tuning = Data::Text(text.clone()).split_for_tuning();
    assert_eq!((tuning.kind(), tuning.train_len(), tuning.test_len(), tuning.classes()), (Kind::Text, 810, 90, 2));
    assert_eq!(tuning, Data::Text(text.split_for_tuning()));
    assert_eq!(Data::Text(text).steps_for_tuning(100), 100);
}

fn synthetic_cifar10(train: usize) -> ImageData {
    let spec = ImageSpec { train, test: 5, ..cifar10::IMAGES };
    let (train, test) = crate::synthetic::splits(&spec);
    reload(&train, &test)
}

/// The data set of these splits, by way of its files.
fn reload(train: &Split, test: &Split) -> ImageData {
    let spec = ImageSpec { train: train.len(), test: test.len(), ..cifar10::IMAGES };
    let dir = tempfile::tempdir().unwrap();
    crate::synthetic::write_cifar10(dir.path(), &spec, train, test);
    let hub = Hub::new(&MultiProgress::new());
    cifar10::load(&spec, Some(dir.path()), &hub).unwrap()
}
