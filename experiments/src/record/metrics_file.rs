//! `metrics.jsonl`: written as measurements come, cut where a trial goes on, and read back.

use super::{checksum, metric::Metric, outcome::Outcome, tensorboard::Events};
use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// `metrics.jsonl` of a running trial, and the same as TensorBoard reads it.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    /// None where the lines go nowhere.
    file: Option<File>,
    events: Option<Events>,
    len: u64,
    hash: Sha256,
}

impl MetricsWriter {
    /// Opens the file `path`, which is created where it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { path, file: Some(file), ..Self::nowhere() })
    }

    /// A writer whose lines go nowhere.
    pub fn nowhere() -> Self {
        Self { path: PathBuf::new(), file: None, events: None, len: 0, hash: Sha256::new() }
    }

    /// The same writer, which also writes `events`.
    pub fn with_events(self, events: Events) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Drops what follows the first `len` bytes, and appends there. Where `sha256` is given, it is that of these bytes.
    ///
    /// # Errors
    /// When the file is shorter, begins with something else, or cannot be cut.
    pub fn go_on_from(&mut self, len: u64, sha256: Option<&str>) -> Result<()> {
        self.len = len;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut cut = || {
            let found = file.metadata()?.len();
            if found < len {
                bail!("it has {found} bytes, and a checkpoint knows of {len}");
            }
            let mut bytes = Vec::new();
            file.rewind()?;
            file.take(len).read_to_end(&mut bytes)?;
            self.hash = Sha256::new_with_prefix(&bytes);
            if sha256.is_some_and(|sha256| sha256 != checksum::hex(self.hash.clone())) {
                bail!("its first {len} bytes are not those that a checkpoint knows of");
            }
            file.set_len(len)?;
            file.seek(SeekFrom::Start(len))?;
            anyhow::Ok(bytes)
        };
        let bytes = cut().with_context(|| format!("cannot go on with `{}`", self.path.display()))?;
        match &mut self.events {
            Some(events) => events.go_on_from(&parse_metrics(&self.path, &bytes)?),
            None => Ok(()),
        }
    }

    /// Appends a line, in one write, so that a reader sees whole lines.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, metric: &Metric) -> Result<()> {
        let line = serde_json::to_string(metric)? + "\n";
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes()).with_context(|| format!("cannot write `{}`", self.path.display()))?;
        }
        if let Some(events) = &mut self.events {
            events.write(metric)?;
        }
        self.len += line.len() as u64;
        self.hash.update(&line);
        Ok(())
    }

    /// The trial has ended: nothing follows, and what was written becomes durable.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn end(&mut self, outcome: &Outcome) -> Result<()> {
        if let Some(events) = &mut self.events {
            events.end(outcome)?;
        }
        self.sync()
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The SHA-256 of what was written.
    pub fn sha256(&self) -> String {
        checksum::hex(self.hash.clone())
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// Reads a `metrics.jsonl`, or the same packed as `metrics.jsonl.gz`.
///
/// # Errors
/// When the file is missing or a line is damaged; the message names both.
pub fn read_metrics(path: &Path) -> Result<Vec<Metric>> {
    parse_metrics(path, &read_packed(path)?)
}

/// The bytes of `path`, or what is packed in the file of that name with `.gz`.
pub(super) fn read_packed(path: &Path) -> Result<Vec<u8>> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    let packed = Path::new(&packed);
    let unpack = || {
        let mut bytes = Vec::new();
        MultiGzDecoder::new(File::open(packed)?).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && packed.exists() => {
            unpack().with_context(|| format!("cannot read `{}`", packed.display()))
        }
        read => read.with_context(|| format!("cannot read `{}`", path.display())),
    }
}

pub(super) fn parse_metrics(path: &Path, bytes: &[u8]) -> Result<Vec<Metric>> {
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|_| !bytes.is_empty())
        .map(|(i, line)| serde_json::from_slice(line).with_context(|| format!("`{}`, line {}", path.display(), i + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_survive_the_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let train = Metric::Train { step: 1, epoch: 0, loss: 0.1, lr: 1e-3, grad_norm: Some(2.5), seconds: 0.25 };
        let eval = Metric::Eval { step: 1, loss: f64::NEG_INFINITY, accuracy: 0.5, seconds: 0.25 };
        let mut writer = MetricsWriter::open(path.clone()).unwrap();
        writer.write(&train).unwrap();
        writer.write(&eval).unwrap();
        writer.sync().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":0.1,\"lr\":0.001,\"grad_norm\":2.5,\"seconds\":0.25}\n\
             {\"kind\":\"eval\",\"step\":1,\"loss\":\"-inf\",\"accuracy\":0.5,\"seconds\":0.25}\n"
        );
        assert_eq!(read_metrics(&path).unwrap(), [train, eval]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"kind\":\"eval\",\"step\":1,\"loss\":1,\"accuracy\":1,\"seconds\":0}\n{\"kind\":\"ev")
            .unwrap();
        let message = format!("{:#}", read_metrics(&path).unwrap_err());
        assert!(message.contains("metrics.jsonl`, line 2"), "{message}");
    }
}
