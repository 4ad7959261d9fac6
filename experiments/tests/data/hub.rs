//! Data sets from the Hub, with a server on this machine in its place.
//!
//! The Hub's address and cache are variables of the environment, so what loads is a child process: this test program
//! itself, told to run one test alone. Files that the real Hub stores in its xet format travel on another path of hf-hub,
//! which this server does not have.

use crate::{
    official,
    parquet_files::{parquet, png, split_as_parquet, text_as_parquet},
    synthetic::{self, splits, write_cifar10, write_fashion_mnist},
};
use experiments::problem::data::{Dataset, Hub, ImageData, ImageSpec, cifar10, fashion_mnist, tinyshakespeare};
use indicatif::MultiProgress;
use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tempfile::TempDir;

const FASHION: ImageSpec = ImageSpec { train: 7, test: 4, ..fashion_mnist::IMAGES };
const CIFAR: ImageSpec = ImageSpec { train: 10, test: 3, ..cifar10::IMAGES };

fn full(dataset: Dataset) -> ImageSpec {
    dataset.spec().images.unwrap()
}

fn small(dataset: Dataset) -> ImageSpec {
    match dataset {
        Dataset::FashionMnist => FASHION,
        _ => CIFAR,
    }
}

/// The Hub names the state of a data set by 40 hexadecimal digits.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Good,
    /// Answers everything with this status.
    Status(u16),
    /// Answers HEAD well, and GET with a page that says 500.
    PageInstead,
    /// Ends the connection in the middle of a body.
    CutOff,
    /// Sends a body shorter than HEAD said, with a length that fits it.
    Short,
    /// Sends other bytes, as many as there should be.
    Garbage,
    /// Sends half of a body, then nothing.
    Stall,
}

/// A server with the Hub's answers for the files of a data set.
struct Server {
    address: SocketAddr,
    files: Arc<HashMap<String, Vec<u8>>>,
    mode: Arc<Mutex<Mode>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// Serves these parquet files as the splits of `dataset`.
    fn start<const FILES: usize>(dataset: Dataset, splits: [(&str, Vec<u8>); FILES]) -> Self {
        let (repo, folder) = match dataset {
            Dataset::FashionMnist => ("zalando-datasets/fashion_mnist", "fashion_mnist"),
            Dataset::Cifar10 => ("cifar10", "plain_text"),
            _ => ("karpathy/tiny_shakespeare", "default"),
        };
        let folder = format!("/datasets/{repo}/resolve/refs%2Fconvert%2Fparquet/{folder}");
        let files = splits.map(|(part, bytes)| (format!("{folder}/{part}/0000.parquet"), bytes));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            files: Arc::new(files.into()),
            mode: Arc::new(Mutex::new(Mode::Good)),
            requests: Arc::default(),
        };
        let (files, mode) = (server.files.clone(), server.mode.clone());
        let requests = server.requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                requests.fetch_add(1, Ordering::SeqCst);
                let (files, mode) = (files.clone(), *mode.lock().unwrap());
                // A client may leave early; that is its business.
                thread::spawn(move || answer(stream.unwrap(), &files, mode).ok());
            }
        });
        server
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, files: &HashMap<String, Vec<u8>>, mode: Mode) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    let is_get = method == Some("GET");

    let page = b"<html>no</html>";
    let (status, body) = match (mode, files.get(path)) {
        (Mode::Status(status), _) => (status, &page[..]),
        (_, None) => (404, &page[..]),
        (Mode::PageInstead, _) if is_get => (500, &page[..]),
        (_, Some(file)) => (200, &file[..]),
    };
    let garbage = vec![b'x'; body.len()];
    let half = &body[..body.len() / 2];
    let (length, sent) = match mode {
        Mode::CutOff | Mode::Stall => (body.len(), half),
        Mode::Short if is_get => (half.len(), half),
        Mode::Garbage => (body.len(), &garbage[..]),
        _ => (body.len(), body),
    };
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Connection: close\r\n\r\n",
        path.replace(['/', '%'], "-"),
    )?;
    if is_get {
        stream.write_all(sent)?;
        stream.flush()?;
        if mode == Mode::Stall {
            thread::sleep(Duration::from_secs(600));
        }
    }
    Ok(())
}

/// The variable that says to a child what to load, what with, and what it must be equal to.
const TASK: &str = "DESCENT_TEST_HUB";

/// Loads `dataset` from the server in a child, and compares it with the files in `files`. The error is the child's.
fn load_in_child(
    server: &Server,
    home: &Path,
    dataset: Dataset,
    spec: Option<&ImageSpec>,
    files: &Path,
) -> Result<(), String> {
    let endpoint = format!("http://{}", server.address);
    // hf-hub's own pauses between attempts last up to six seconds.
    let stalls = *server.mode.lock().unwrap() == Mode::Stall;
    let patience = Duration::from_secs(if stalls { 1 } else { 60 });
    load_from(&endpoint, home, dataset, spec, files, patience)
}

fn load_from(
    endpoint: &str,
    home: &Path,
    dataset: Dataset,
    spec: Option<&ImageSpec>,
    files: &Path,
    patience: Duration,
) -> Result<(), String> {
    let task = serde_json::json!([dataset, spec.map(|spec| (spec.train, spec.test)), files, patience]);
    let mut command = Command::new(env::current_exe().unwrap());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("HF_") || name.starts_with("HUGGINGFACE") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["hub::data_from_the_hub_equals_that_of_the_files", "--exact", "--nocapture"])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", home)
        .env(TASK, task.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let outcome = text.split("outcome: ").nth(1).unwrap_or_else(|| panic!("{text}"));
    match outcome.split_once("\nend of outcome").unwrap().0 {
        "equal" => Ok(()),
        error => Err(error.to_string()),
    }
}

/// What the child does.
fn child(task: &str) {
    let (dataset, sizes, files, patience): (Dataset, Option<(usize, usize)>, PathBuf, Duration) =
        serde_json::from_str(task).unwrap();
    let hub = Hub { patience, ..Hub::new(&MultiProgress::new()) };
    let outcome = match sizes {
        Some((train, test)) => {
            let spec = ImageSpec { train, test, ..full(dataset) };
            let load = |dir: Option<&Path>| synthetic::load(dataset, &spec, dir, &hub);
            compare(load, &files)
                .inspect(|data| {
                    if spec != full(dataset) {
                        equals_candle_datasets(dataset, data);
                    }
                })
                .map(|_| ())
        }
        None => compare(|dir| tinyshakespeare::load(dir, &hub).map_err(|error| error.to_string()), &files).map(|_| ()),
    };
    println!("outcome: {}\nend of outcome", outcome.err().unwrap_or("equal".into()));
}

/// What `load` gives from the Hub, which must be what it gives from files.
fn compare<T: PartialEq>(load: impl Fn(Option<&Path>) -> Result<T, String>, files: &Path) -> Result<T, String> {
    let data = load(None)?;
    assert!(data == load(Some(files)).unwrap(), "the Hub's data differs from that of the files");
    Ok(data)
}

/// candle-datasets reads the same cache: as floats, and the colour images with rows and columns swapped.
fn equals_candle_datasets(dataset: Dataset, data: &ImageData) {
    let candle = match dataset {
        Dataset::FashionMnist => candle_datasets::vision::fashion_mnist::load(),
        _ => candle_datasets::vision::cifar::load(),
    }
    .unwrap();
    for (images, labels, split) in
        [(candle.train_images, candle.train_labels, &data.train), (candle.test_images, candle.test_labels, &data.test)]
    {
        let images = match dataset {
            Dataset::FashionMnist => images,
            _ => images.transpose(2, 3).unwrap(),
        };
        let images = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes: Vec<_> = images.iter().map(|value| (value * 255.0).round() as u8).collect();
        assert!(bytes == split.images, "candle-datasets reads other images");
        assert_eq!(labels.to_vec1::<u8>().unwrap(), split.labels);
    }
}

/// Files of synthetic images, a server that has the same as parquet, and an empty cache.
fn setup(dataset: Dataset) -> (TempDir, Server, TempDir) {
    let spec = small(dataset);
    let (train, test) = splits(&spec);
    let files = tempfile::tempdir().unwrap();
    match dataset {
        Dataset::FashionMnist => write_fashion_mnist(files.path(), &spec, &train, &test),
        _ => write_cifar10(files.path(), &spec, &train, &test),
    }
    let server =
        Server::start(dataset, [("train", split_as_parquet(&spec, &train)), ("test", split_as_parquet(&spec, &test))]);
    (files, server, tempfile::tempdir().unwrap())
}

#[test]
fn data_from_the_hub_equals_that_of_the_files() {
    if let Ok(task) = env::var(TASK) {
        return child(&task);
    }
    for dataset in [Dataset::FashionMnist, Dataset::Cifar10] {
        let (files, server, home) = setup(dataset);
        let load = || load_in_child(&server, home.path(), dataset, Some(&small(dataset)), files.path());
        load().unwrap();
        assert!(server.requests() > 0);
        // The second time everything is in the cache, and no Hub is needed.
        server.set(Mode::Status(500));
        load().unwrap();
        assert_eq!(server.requests(), 0);
        // With the sizes of the real data sets, these are too few.
        let error = load_in_child(&server, home.path(), dataset, Some(&full(dataset)), files.path()).unwrap_err();
        let expected = format!("expected {} images, found {}", full(dataset).train, small(dataset).train);
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_failed_download_is_an_error_and_leaves_nothing_behind() {
    let dataset = Dataset::Cifar10;
    for (mode, reason) in [
        (Mode::Status(403), "Forbidden"),
        (Mode::Status(404), "Entry not found"),
        (Mode::Status(500), "HTTP error: 500"),
        (Mode::PageInstead, "bytes, found 15"),
        (Mode::CutOff, "end of file before message length reached"),
        (Mode::Short, " bytes, found "),
        (Mode::Garbage, "expected a parquet file, found "),
        (Mode::Stall, "no new byte for 1 seconds after "),
    ] {
        let (files, server, home) = setup(dataset);
        let load = || load_in_child(&server, home.path(), dataset, Some(&small(dataset)), files.path());
        server.set(mode);
        let error = load().unwrap_err();
        let start = "cannot download plain_text/train/0000.parquet of the Hub's data set cifar10: ";
        let end = "; if you have the data set's files, name their folder with --data-dir DIR";
        assert!(error.starts_with(start) && error.ends_with(end), "{mode:?}: {error}");
        assert!(error.contains(reason) && !error.contains('\n'), "{mode:?}: {error}");
        server.set(Mode::Good);
        load().unwrap_or_else(|error| panic!("after {mode:?}: {error}"));
    }
}

#[test]
fn a_hub_that_is_not_there_is_an_error() {
    let (files, _, home) = setup(Dataset::FashionMnist);
    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = load_from(
        &format!("http://{closed}"),
        home.path(),
        Dataset::FashionMnist,
        Some(&FASHION),
        files.path(),
        Duration::from_secs(60),
    )
    .unwrap_err();
    assert!(error.contains("Connection refused"), "{error}");
    assert!(error.ends_with("--data-dir DIR") && !error.contains('\n'), "{error}");
}

/// What other programs, or a disk, may have left in the cache.
#[test]
fn damaged_files_in_the_cache_are_replaced() {
    let dataset = Dataset::Cifar10;
    for keep in [0, 3, 200] {
        let (files, server, home) = setup(dataset);
        let load = || load_in_child(&server, home.path(), dataset, Some(&small(dataset)), files.path());
        load().unwrap();
        let blobs = home.path().join("hub/datasets--cifar10/blobs");
        let mut damaged = 0;
        for blob in blobs.read_dir().unwrap() {
            let path = blob.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..keep]).unwrap();
            damaged += 1;
        }
        assert_eq!(damaged, 2);
        load().unwrap_or_else(|error| panic!("{keep} bytes kept: {error}"));
    }
}

/// Whole parquet files with wrong content: the error names the file and the row, and the next load tries anew.
#[test]
fn wrong_content_is_an_error() {
    let dataset = Dataset::Cifar10;
    let (train, test) = splits(&CIFAR);
    let pictures: Vec<_> = train.images.chunks(3072).map(|image| png(&CIFAR, image)).collect();
    let labels: Vec<i64> = train.labels.iter().map(|&label| label.into()).collect();
    let test = split_as_parquet(&CIFAR, &test);
    let grey = png(&fashion_mnist::IMAGES, &train.images[..784]);
    let mut bad_crc = pictures[4].clone();
    let middle = bad_crc.len() / 2;
    bad_crc[middle] ^= 1;
    let with = |i: usize, picture: Vec<u8>| {
        let mut pictures = pictures.clone();
        pictures[i] = picture;
        parquet(&pictures, &labels)
    };
    let with_label = |i: usize, label| {
        let mut labels = labels.clone();
        labels[i] = label;
        parquet(&pictures, &labels)
    };
    let picture = "expected a picture of 32 x 32 pixels for image";
    for (train, expected) in [
        (with(4, b"no picture".to_vec()), format!("{picture} 4, found The image format could not be determined")),
        (with(4, bad_crc), format!("{picture} 4, found Format error decoding Png")),
        (with(9, grey), format!("{picture} 9, found 28 x 28")),
        (with_label(2, 10), "expected labels 0 to 9, found 10 for image 2".into()),
        (with_label(3, -1), "expected labels 0 to 9, found -1 for image 3".into()),
        (parquet(&pictures[1..], &labels[1..]), "expected 10 images, found 9".into()),
        (b"PAR1 nothing in between PAR1".to_vec(), "expected a parquet file, found ".into()),
    ] {
        let (files, good, home) = setup(dataset);
        let server = Server::start(dataset, [("train", train), ("test", test.clone())]);
        let load = |server| load_in_child(server, home.path(), dataset, Some(&CIFAR), files.path());
        let error = load(&server).unwrap_err();
        assert!(error.contains(&expected) && !error.contains('\n'), "{error}\n{expected}");
        assert!(error.contains("plain_text/train/0000.parquet: expected"), "{error}");
        load(&good).unwrap();
    }
}

/// The real images, by way of parquet files of their full size.
#[test]
fn official_images_come_through_the_hub_unchanged() {
    let Some(dir) = official::folder("the official images by way of the Hub") else {
        return;
    };
    for dataset in [Dataset::FashionMnist, Dataset::Cifar10] {
        let (data, spec) = (official::images(dataset, &dir), full(dataset));
        let splits = [("train", &data.train), ("test", &data.test)];
        let server = Server::start(dataset, splits.map(|(part, split)| (part, split_as_parquet(&spec, split))));
        let home = tempfile::tempdir().unwrap();
        load_in_child(&server, home.path(), dataset, Some(&spec), &dir).unwrap();
    }
}

/// A text with Tiny Shakespeare's size and number of different characters, cut where the Hub cuts it: 65
/// characters in a random order.
fn synthetic_text() -> String {
    let mut state = 1_u32;
    let mut character = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'-' + ((state >> 16) % 65) as u8)
    };
    (0..1_115_394).map(|_| character()).collect()
}

/// The splits as the Hub holds them, the training split in two rows.
fn as_splits(text: &str) -> [(&'static str, Vec<u8>); 3] {
    let (train, rest) = text.split_at(1_003_854);
    let (validation, test) = rest.split_at(55_770);
    let (first, second) = train.split_at(500_000);
    [
        ("train", text_as_parquet("text", &[first, second])),
        ("validation", text_as_parquet("text", &[validation])),
        ("test", text_as_parquet("text", &[test])),
    ]
}

#[test]
fn text_from_the_hub_equals_that_of_the_file() {
    let dataset = Dataset::Tinyshakespeare;
    let text = synthetic_text();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("input.txt"), &text).unwrap();
    let good = as_splits(&text);
    let home = tempfile::tempdir().unwrap();
    let load = |server: &Server| load_in_child(server, home.path(), dataset, None, files.path());
    // Wrong content is an error, and is not kept.
    for (part, bytes, expected) in [
        (0, text_as_parquet("text", &["short"]), "karpathy/tiny_shakespeare: expected 1115394 bytes, found 111545"),
        (1, text_as_parquet("words", &["a"]), "0000.parquet: expected a column `text` of text, found row 0 without it"),
        (2, b"PAR1 nothing in between PAR1".to_vec(), "0000.parquet: expected a parquet file, found "),
    ] {
        let mut splits = good.clone();
        splits[part].1 = bytes;
        let error = load(&Server::start(dataset, splits)).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}\n{expected}");
    }
    let server = Server::start(dataset, good);
    load(&server).unwrap();
    assert!(server.requests() > 0);
    // The second time everything is in the cache.
    server.set(Mode::Status(500));
    load(&server).unwrap();
    assert_eq!(server.requests(), 0);
    let home = tempfile::tempdir().unwrap();
    let error = load_in_child(&server, home.path(), dataset, None, files.path()).unwrap_err();
    let start = "cannot download default/train/0000.parquet of the Hub's data set karpathy/tiny_shakespeare: ";
    assert!(error.starts_with(start) && error.contains("500") && error.ends_with("--data-dir DIR"), "{error}");
}
