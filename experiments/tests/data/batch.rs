//! The embedded digits, names, and what a batch holds.

use experiments::data::{Augment, Dataset, Hub, ImageData, Spec, Split, cifar10};
use indicatif::MultiProgress;

fn digits() -> ImageData {
    Dataset::Digits.load(None, &MultiProgress::new()).unwrap()
}

#[test]
fn digits_are_scikit_learns_and_split_by_class() {
    let digits = digits();
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
    assert_eq!(digits, self::digits());
}

#[test]
fn a_data_set_is_found_by_its_name_only() {
    for dataset in Dataset::ALL {
        assert_eq!(dataset.to_string().parse::<Dataset>().unwrap(), dataset);
        let name = serde_json::to_string(&dataset).unwrap();
        assert_eq!(name, format!("\"{dataset}\""));
    }
    let known = "expected digits or fashion-mnist or cifar10";
    for (name, hint) in [
        ("cifar-10", "; did you mean cifar10?"),
        ("fashion_mnist", "; did you mean fashion-mnist?"),
        ("digit", "; did you mean digits?"),
        ("imagenet", ""),
        ("", ""),
    ] {
        let error = name.parse::<Dataset>().unwrap_err().to_string();
        assert_eq!(error, format!("unknown data set {name:?}: {known}{hint}"));
    }
}

/// The mean and the standard deviation of a batch of the whole training split are 0 and 1 per channel.
#[test]
fn a_batch_of_everything_is_standardised() {
    let colour = synthetic_cifar10(50);
    for data in [digits(), colour] {
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

/// Every augmentation against the definition: pad, cut, mirror, scale, normalise.
#[test]
fn a_batch_is_what_its_definition_says() {
    let data = synthetic_cifar10(20);
    let (c, h, w) = (data.channels, data.height as i32, data.width as i32);
    let mut cases = vec![None];
    for (dy, dx) in [(0, 0), (4, -4), (-4, 4), (1, 0), (0, -3), (31, 31), (-32, 0), (0, 33), (-128, 127)] {
        cases.extend([false, true].map(|flip| Some(Augment { dy, dx, flip })));
    }
    for augment in cases {
        let indices = [7, 0, 7];
        let list = augment.map(|augment| vec![augment; indices.len()]);
        let (pixels, labels) = data.batch(&data.train, &indices, list.as_deref());
        assert_eq!(labels, indices.map(|i| u32::from(data.train.labels[i])));
        let Augment { dy, dx, flip } = augment.unwrap_or_default();
        let mut pixel = pixels.into_iter();
        for index in indices {
            for channel in 0..c {
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    let x = if flip { w - 1 - x } else { x };
                    let (y, x) = (y + i32::from(dy), x + i32::from(dx));
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

fn synthetic_cifar10(train: usize) -> ImageData {
    let spec = Spec { train, test: 5, ..cifar10::SPEC };
    let (train, test) = crate::synthetic::splits(&spec);
    reload(&train, &test)
}

/// The data set of these splits, by way of its files.
fn reload(train: &Split, test: &Split) -> ImageData {
    let spec = Spec { train: train.len(), test: test.len(), ..cifar10::SPEC };
    let dir = tempfile::tempdir().unwrap();
    crate::synthetic::write_cifar10(dir.path(), &spec, train, test);
    let hub = Hub::new(&MultiProgress::new());
    Dataset::Cifar10.load_as(&spec, Some(dir.path()), &hub).unwrap()
}
