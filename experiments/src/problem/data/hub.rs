//! Data sets from the Hugging Face Hub, which holds them in parquet files: images as PNG, and text in a column of its own.
//!
//! The files of images are those that candle-datasets takes, in the cache that it uses (`HF_HOME`), so what either has downloaded
//! serves both. Three things are done in another way than in its `vision::*::load`: a download that failed half-way does
//! not stay in the cache as if it were whole; an image that cannot be read is an error that names its row; and images
//! keep their orientation, as bytes, in a quarter of the memory.

use super::{
    error::{DataError, one_line},
    images::{ImageSpec, Split},
    source::{Hub, Source},
};
use candle_datasets::hub::FileReader;
use hf_hub::{
    HFClientSync, HFResult,
    progress::{DownloadEvent, ProgressEvent, ProgressHandler},
};
use indicatif::{ProgressBar, ProgressStyle};
use parquet::{errors::ParquetError, file::reader::SerializedFileReader, record::Field};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

/// The branch on which the Hub keeps its own conversion of a data set.
const REVISION: &str = "refs/convert/parquet";

/// How soon a download that waits for a byte sees that it is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The first and the last four bytes of a parquet file.
const MAGIC: [u8; 4] = *b"PAR1";

impl Hub {
    /// The training and the test split of images.
    pub(super) fn images(&self, source: &Source<2>, spec: &ImageSpec) -> Result<(Split, Split), DataError> {
        let read = |file: &str, images: usize| {
            let path = self.fetch(source.repo, file)?;
            // What cannot be read is not kept, so that the next run downloads it anew.
            read_images(&path, spec, images).inspect_err(|_| remove(&path))
        };
        Ok((read(source.files[0], spec.train)?, read(source.files[1], spec.test)?))
    }

    /// All splits of text, one after another, if `check` has nothing against them.
    pub(super) fn text<const FILES: usize>(
        &self,
        source: &Source<FILES>,
        check: impl Fn(&str) -> Result<(), DataError>,
    ) -> Result<String, DataError> {
        let mut paths = Vec::new();
        for file in source.files {
            paths.push(self.fetch(source.repo, file)?);
        }
        let mut text = String::new();
        paths
            .iter()
            .try_for_each(|path| read_text(path, &mut text))
            .and_then(|()| check(&text))
            .inspect_err(|_| paths.iter().for_each(|path| remove(path)))?;
        Ok(text)
    }

    fn fetch(&self, repo: &str, file: &str) -> Result<PathBuf, DataError> {
        let download = self.try_fetch(repo, file);
        download.map_err(|reason| DataError::Download { repo: repo.into(), file: file.into(), reason })
    }

    /// The path of a whole parquet file: from the cache, or else downloaded.
    fn try_fetch(&self, repo: &str, file: &str) -> Result<PathBuf, String> {
        let client = HFClientSync::new().map_err(|error| one_line(&error))?;
        let (owner, name) = hf_hub::split_id(repo);
        let dataset = client.dataset(owner, name);
        let cached = dataset.download_file().filename(file).revision(REVISION).local_files_only(true).send();
        if let Ok(path) = cached {
            if check_ends(&path).is_ok() {
                return Ok(path);
            }
            remove(&path);
        }

        let (sender, events) = mpsc::channel();
        let worker = {
            let file = file.to_string();
            let progress = Reporter(sender.clone());
            // `force_download`, because hf-hub otherwise takes a blob of the same name for whole.
            move || {
                let path = dataset
                    .download_file()
                    .filename(file)
                    .revision(REVISION)
                    .force_download(true)
                    .progress(progress)
                    .send();
                // Nobody listens any more after the patience ran out.
                let _ = sender.send(Event::End(path));
            }
        };
        // Not joined: a request that hangs would hang us as well.
        std::thread::spawn(worker);

        let bar = self.progress.add(ProgressBar::no_length());
        bar.set_style(style());
        bar.set_message(format!("{repo} {file}"));
        let result = self.watch(&events, &bar);
        bar.finish_and_clear();
        self.progress.remove(&bar);

        let (path, expected) = result?;
        check_whole(&path, expected).inspect_err(|_| remove(&path))?;
        Ok(path)
    }

    /// Follows a download to its end: the file and the size that the Hub announced, in bytes.
    fn watch(&self, events: &mpsc::Receiver<Event>, bar: &ProgressBar) -> Result<(PathBuf, u64), String> {
        let (mut size, mut received) = (0, 0);
        let mut deadline = Instant::now() + self.patience;
        loop {
            if self.stop.load(Relaxed) {
                return Err(format!("interrupted after {received} of {size} bytes"));
            }
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now()).min(LOOK_AGAIN)) {
                Ok(Event::Size(bytes)) => {
                    size = bytes;
                    bar.set_length(bytes);
                }
                Ok(Event::Received(bytes)) if bytes > received => {
                    received = bytes;
                    bar.set_position(bytes);
                }
                Ok(Event::Received(_)) => continue,
                Ok(Event::End(Ok(path))) => return Ok((path, size)),
                Ok(Event::End(Err(error))) => return Err(one_line(&error)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "no new byte for {} seconds after {received} of {size}",
                        self.patience.as_secs_f32()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the download stopped".into()),
            }
            deadline = Instant::now() + self.patience;
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{bar:10} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left  {wide_msg}",
    )
    .expect("the template is a constant")
}

/// What a download reports.
enum Event {
    /// The file's size in bytes.
    Size(u64),
    /// Bytes that have come so far.
    Received(u64),
    End(HFResult<PathBuf>),
}

/// Passes hf-hub's progress on.
struct Reporter(Sender<Event>);

impl ProgressHandler for Reporter {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        let event = match event {
            DownloadEvent::Start { total_bytes, .. } => Event::Size(*total_bytes),
            DownloadEvent::Progress { files } => Event::Received(files.iter().map(|file| file.bytes_completed).sum()),
            DownloadEvent::AggregateProgress { bytes_completed, .. } => Event::Received(*bytes_completed),
            DownloadEvent::Complete => return,
        };
        // Nobody listens any more after the patience ran out.
        let _ = self.0.send(event);
    }
}

/// Fails unless a download has the size that was announced and the ends of a parquet file.
fn check_whole(path: &Path, expected: u64) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|error| one_line(&error))?.len();
    if found != expected {
        return Err(format!("expected {expected} bytes, found {found}"));
    }
    check_ends(path).map_err(|error| format!("expected a parquet file, found {found} other bytes ({error})"))
}

/// Fails unless the file begins and ends as a parquet file.
fn check_ends(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    for end in [SeekFrom::Start(0), SeekFrom::End(-(MAGIC.len() as i64))] {
        let mut bytes = [0; MAGIC.len()];
        file.seek(end)?;
        file.read_exact(&mut bytes)?;
        if bytes != MAGIC {
            return Err(io::Error::other("PAR1 is missing at an end"));
        }
    }
    Ok(())
}

/// Takes a file out of the Hub's cache: the name, and the bytes that it is a link to. A failure to remove is no error: the
/// file is checked again at the next run.
fn remove(path: &Path) {
    let blob = fs::canonicalize(path);
    let _ = fs::remove_file(path);
    if let Ok(blob) = blob {
        let _ = fs::remove_file(blob);
    }
}

fn parquet_error(path: &Path, error: &ParquetError) -> DataError {
    DataError::file(path, "a parquet file", one_line(error))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(path).map_err(|error| DataError::file(path, "a file", error))?;
    SerializedFileReader::new(file).map_err(|error| parquet_error(path, &error))
}

/// Appends the column `text` of a parquet file, row by row.
fn read_text(path: &Path, text: &mut String) -> Result<(), DataError> {
    let reader = open(path)?;
    let rows = reader.get_row_iter(None).map_err(|error| parquet_error(path, &error))?;
    for (i, row) in rows.enumerate() {
        let row = row.map_err(|error| parquet_error(path, &error))?;
        let found = row.get_column_iter().find_map(|(name, field)| match field {
            Field::Str(value) if name == "text" => Some(value),
            _ => None,
        });
        *text +=
            found.ok_or_else(|| DataError::file(path, "a column `text` of text", format!("row {i} without it")))?;
    }
    Ok(())
}

/// The images and labels of a parquet file that holds so many.
fn read_images(path: &Path, spec: &ImageSpec, images: usize) -> Result<Split, DataError> {
    let reader = open(path)?;
    let rows = reader.metadata().file_metadata().num_rows();
    if usize::try_from(rows) != Ok(images) {
        return Err(DataError::file(path, format!("{images} images"), rows));
    }
    let mut split = Split::with_capacity(images, spec.image_len());
    for (i, row) in reader.get_row_iter(None).map_err(|error| parquet_error(path, &error))?.enumerate() {
        let row = row.map_err(|error| parquet_error(path, &error))?;
        let (mut picture, mut label) = (None, None);
        for (_, field) in row.get_column_iter() {
            match field {
                Field::Group(fields) => {
                    picture = fields.get_column_iter().find_map(|(_, field)| match field {
                        Field::Bytes(bytes) => Some(bytes.data()),
                        _ => None,
                    });
                }
                Field::Long(value) => label = Some(*value),
                _ => {}
            }
        }
        let (picture, label) = picture.zip(label).ok_or_else(|| {
            let found = format!("row {i} without one of them");
            DataError::file(path, "pictures and labels", found)
        })?;
        push_image(spec, picture, &mut split.images).map_err(|found| {
            let (height, width) = (spec.height, spec.width);
            let expected = format!("a picture of {height} x {width} pixels for image {i}");
            DataError::file(path, expected, found)
        })?;
        let label = u8::try_from(label)
            .ok()
            .filter(|&label| usize::from(label) < spec.classes)
            .ok_or_else(|| DataError::label(path, spec.classes, label, i))?;
        split.labels.push(label);
    }
    if split.len() != images {
        return Err(DataError::file(path, format!("{images} images"), split.len()));
    }
    Ok(split)
}

/// Appends the pixels of an encoded picture, channel by channel.
fn push_image(spec: &ImageSpec, encoded: &[u8], images: &mut Vec<u8>) -> Result<(), String> {
    let picture = image::load_from_memory(encoded).map_err(|error| one_line(&error))?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if (width, height) != (spec.width, spec.height) {
        return Err(format!("{height} x {width}"));
    }
    let pixels = match spec.channels {
        1 => picture.into_luma8().into_raw(),
        _ => picture.into_rgb8().into_raw(),
    };
    for channel in 0..spec.channels {
        images.extend(pixels.iter().skip(channel).step_by(spec.channels));
    }
    Ok(())
}
