//! Small data sets in every format that the loaders read. Their images have no symmetry, so a wrong order of rows,
//! columns or channels shows.

use experiments::problem::data::{Dataset, Hub, ImageData, ImageSpec, Split, cifar10, fashion_mnist};
use flate2::{Compression, write::GzEncoder};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use parquet::{
    basic,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::{fs, io::Write, path::Path, sync::Arc};

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

/// One image as PNG.
pub fn png(spec: &ImageSpec, image: &[u8]) -> Vec<u8> {
    let plane = spec.height * spec.width;
    let pixels: Vec<u8> =
        (0..plane).flat_map(|i| (0..spec.channels).map(move |channel| image[channel * plane + i])).collect();
    let color = match spec.channels {
        1 => ExtendedColorType::L8,
        _ => ExtendedColorType::Rgb8,
    };
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&pixels, spec.width as u32, spec.height as u32, color).unwrap();
    bytes
}

/// A parquet file in the Hub's layout: a column of pictures (bytes and path) and a column of labels.
pub fn parquet(pictures: &[Vec<u8>], labels: &[i64]) -> Vec<u8> {
    const SCHEMA: &str = "message schema {
        optional group img { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    const ROWS_PER_GROUP: usize = 1000;
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(basic::Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let groups = pictures.chunks(ROWS_PER_GROUP).zip(labels.chunks(ROWS_PER_GROUP));
    for (pictures, labels) in groups {
        let n = pictures.len();
        let bytes: Vec<_> = pictures.iter().cloned().map(ByteArray::from).collect();
        let mut group = writer.next_row_group().unwrap();
        // The levels say of each value which of the optional fields above it are there: both for the bytes, only the
        // group for the path.
        let columns: [(&[ByteArray], i16); 2] = [(&bytes, 2), (&[], 1)];
        for (values, level) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(values, Some(&vec![level; n]), None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(labels, Some(&vec![1; n]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

/// A split as the Hub holds it.
pub fn split_as_parquet(spec: &ImageSpec, split: &Split) -> Vec<u8> {
    let pictures: Vec<_> = split.images.chunks(spec.image_len()).map(|image| png(spec, image)).collect();
    let labels: Vec<_> = split.labels.iter().map(|&label| label.into()).collect();
    parquet(&pictures, &labels)
}

/// A parquet file with a column of text.
pub fn text_as_parquet(column: &str, rows: &[&str]) -> Vec<u8> {
    let schema = format!("message schema {{ optional binary {column} (UTF8); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let values: Vec<ByteArray> = rows.iter().map(|&row| row.into()).collect();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&vec![1; rows.len()]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}
