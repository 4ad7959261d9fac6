//! Data sets in the form in which the Hub has them: parquet files with a column of pictures, or one of text.

use experiments::problem::data::{ImageSpec, Split};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use parquet::{
    basic,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::sync::Arc;

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
