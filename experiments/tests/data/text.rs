//! Text from files: right ones, and every way in which a file can be wrong.

use crate::official;
use experiments::problem::data::{Data, Dataset, Hub, TextData};
use indicatif::MultiProgress;
use std::{fs, path::Path};

fn load(dataset: Dataset, dir: Option<&Path>, text: Option<&Path>) -> Result<TextData, String> {
    match dataset.load(dir, text, &Hub::new(&MultiProgress::new())).map_err(|error| error.to_string())? {
        Data::Text(data) => Ok(data),
        Data::Images(data) => panic!("{} has images", data.name),
    }
}

#[test]
fn any_file_is_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    let text = "Grüße aus der Stadt, 5 €.\n";
    fs::write(&path, text).unwrap();
    let data = load(Dataset::Text, None, Some(&path)).unwrap();
    assert_eq!(data.name, "notes.txt");
    let characters: String = data.train.iter().chain(&data.test).map(|&i| data.vocabulary[i as usize]).collect();
    assert_eq!(characters, text);
    assert_eq!(data, TextData { name: data.name.clone(), ..TextData::from_text("", text).unwrap() });
}

/// The same text by editors of several systems. What only looks like their marks stays.
#[test]
fn a_byte_order_mark_is_no_character_and_cr_lf_is_one_newline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    let plain = "one line\nand another\n\nand the end\n";
    let expected = TextData::from_text("notes.txt", plain).unwrap();
    let crlf = plain.replace('\n', "\r\n");
    for text in [plain.to_owned(), format!("\u{feff}{plain}"), crlf.clone(), format!("\u{feff}{crlf}")] {
        fs::write(&path, &text).unwrap();
        assert_eq!(load(Dataset::Text, None, Some(&path)).unwrap(), expected, "{text:?}");
    }
    for text in ["one line\rand another\n\r and the end", "one line, \u{feff} and \u{feff} another"] {
        fs::write(&path, text).unwrap();
        let expected = TextData::from_text("notes.txt", text).unwrap();
        assert_eq!(load(Dataset::Text, None, Some(&path)).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn wrong_files_are_errors_of_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for (bytes, expected) in [
        (b"0123456789abcdefghi\xff and more".to_vec(), "expected UTF-8 text, found the byte 0xff at position 19"),
        // The first byte of a character of three, at the end.
        ("0123456789abcdefghi€".as_bytes()[..20].to_vec(), "expected UTF-8 text, found the byte 0xe2 at position 19"),
        (
            b"\xff\xfe0\x001\x00".to_vec(),
            "expected UTF-8 text, found UTF-16, by its byte order mark: `iconv -f UTF-16 -t UTF-8` converts it",
        ),
        ("\u{feff}0123456789abcdef\r\n\r\n".into(), "expected a text of at least 20 characters, found 18"),
        (b"0123456789abcdefghi".to_vec(), "expected a text of at least 20 characters, found 19"),
        (vec![], "expected a text of at least 20 characters, found 0"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = load(Dataset::Text, None, Some(&path)).unwrap_err();
        assert_eq!(error, format!("{}: {expected}", path.display()));
    }
    let error = load(Dataset::Text, None, Some(dir.path())).unwrap_err();
    assert!(error.starts_with(&format!("{}: expected a readable file, found ", dir.path().display())), "{error}");
    let error = load(Dataset::Text, Some(dir.path()), None).unwrap_err();
    assert_eq!(error, "data set text: expected a file (--text FILE), found none");
}

#[test]
fn tiny_shakespeare_has_one_size() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(Dataset::Tinyshakespeare, Some(dir.path()), None).unwrap_err();
    let start =
        format!("{}: expected a file (or input.txt) here or in ", dir.path().join("tinyshakespeare.txt").display());
    assert!(error.starts_with(&start), "{error}");
    let path = dir.path().join("input.txt");
    for (text, expected) in [
        ("a".repeat(1_115_393), "expected 1115394 bytes, found 1115393"),
        ("a".repeat(1_115_395), "expected 1115394 bytes, found more"),
        ("ab".repeat(557_697), "expected 65 different characters, found 2"),
    ] {
        fs::write(&path, text).unwrap();
        for place in [dir.path(), &path] {
            let error = load(Dataset::Tinyshakespeare, Some(place), None).unwrap_err();
            assert_eq!(error, format!("{}: {expected}", path.display()));
        }
    }
}

/// nanoGPT's `data/shakespeare_char/prepare.py` prints these numbers.
#[test]
fn official_text_has_its_published_statistics() {
    let Some(dir) = official::folder("statistics of the official text") else {
        return;
    };
    let data = load(Dataset::Tinyshakespeare, Some(&dir), None).unwrap();
    let vocabulary: String = data.vocabulary.iter().collect();
    assert_eq!(vocabulary, "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    assert_eq!((data.train.len(), data.test.len()), (1_003_854, 111_540));
    let start: String = data.train[..14].iter().map(|&token| data.vocabulary[token as usize]).collect();
    assert_eq!(start, "First Citizen:");
    assert_eq!((data.name.as_str(), data.floor), ("tinyshakespeare", None));

    let text = fs::read_to_string(dir.join("tinyshakespeare.txt")).unwrap();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("input.txt"), text.replace('\n', "\r\n")).unwrap();
    assert_eq!(load(Dataset::Tinyshakespeare, Some(other.path()), None).unwrap(), data);
}
