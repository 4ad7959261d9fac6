//! The records of a run: what is written to OUT, and read back to report on it.
//!
//! ```text
//! OUT/experiment.json              what was asked for, and by which program, commit and device
//! OUT/config.toml                  the same as a file for `--config`
//! OUT/trials/<id>/trial.json       a trial's config, and its outcome once it has ended
//! OUT/trials/<id>/metrics.jsonl    its measurements, a line each, written as they come
//! OUT/trials/<id>/checkpoint.safetensors  where it stands, until it has ended
//! OUT/tensorboard/<id>/            the measurements as TensorBoard reads them
//! OUT/summary.json                 statistics over the seeds
//! OUT/report.html, OUT/*.svg       the report and its pictures
//! OUT/log.txt                      the log
//! OUT/lock                         locked by the process that writes here
//! ```
//!
//! Files other than logs and measurements appear whole or not at all. Measurements that are not finite, for which JSON has no
//! numbers, are written as `"inf"`, `"-inf"` and `"nan"`; `null` is what was not measured.
//! Each JSON file ends with a checksum of its own, and `trial.json` has that of `metrics.jsonl` once the trial has ended. What is
//! read back is also held against each other ([`agreement`]), so that records without checksums, of programs before this one, agree.
//! `metrics.jsonl` may be packed by gzip, as `metrics.jsonl.gz`.

pub mod checksum;
pub mod summary;
pub mod tensorboard;

use crate::{
    agreement,
    config::precision::Precision,
    problem::models::Operations,
    record::{checksum, summary::Summary, tensorboard::Events},
    run::train::Outcome,
};
use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// One measurement, a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Metric {
    /// A training step.
    Train {
        /// The updates made, this one included.
        step: u64,
        /// The epoch it belongs to, from 0.
        epoch: u64,
        /// The loss of its batch before the update.
        #[serde(with = "number")]
        loss: f64,
        /// The learning rate it used.
        lr: f64,
        /// The global norm of its gradient before clipping.
        #[serde(default, with = "number::optional")]
        grad_norm: Option<f64>,
        /// Training time since the trial's start, without evaluation and saving.
        seconds: f64,
    },
    /// A pass over the test images.
    Eval {
        /// The updates made before it.
        step: u64,
        /// The mean loss of a test image.
        #[serde(with = "number")]
        loss: f64,
        /// The share of test images whose class is right.
        accuracy: f64,
        /// Training time since the trial's start, without evaluation and saving.
        seconds: f64,
    },
    /// What happens inside the model in a training step, where that is watched.
    Probe {
        /// The updates made, this one included.
        step: u64,
        /// The norm of the update over the norm of the parameters before it.
        #[serde(with = "number")]
        update_ratio: f64,
        /// The angle between this update and the one before, in degrees; none for the first, and where either moved nothing.
        #[serde(default, with = "number::optional")]
        update_angle: Option<f64>,
        /// By the name of the layer, in the order of the forward pass.
        layers: Vec<LayerProbe>,
    },
}

/// What a probe sees of a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerProbe {
    /// Its name: the part that its parameters' names share, such as `blocks.0`.
    pub layer: String,
    /// The norm of its gradient before clipping; none for a layer without parameters.
    #[serde(default, with = "number::optional")]
    pub grad_norm: Option<f64>,
    /// The norm of its update over the norm of its parameters before it; none for a layer without parameters.
    #[serde(default, with = "number::optional")]
    pub update_ratio: Option<f64>,
    /// The largest absolute value that it puts out.
    #[serde(default, with = "number::optional")]
    pub activation_max: Option<f64>,
    /// The largest absolute attention logit before masking; none outside attention.
    #[serde(default, with = "number::optional")]
    pub attention_logit_max: Option<f64>,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// To choose hyperparameters: it trains on a part of the training data and is judged by the rest.
    Tune,
    /// To compare: it is judged by the test data.
    Final,
}

/// One of the things that are compared, as text that users write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its name in tables and pictures; no two are the same.
    pub name: String,
    /// The data set, as in `--dataset`.
    pub dataset: String,
    /// The model, as in `--model`.
    pub model: String,
    /// The optimizer, as in `--opt`; with `--tune`, before tuning.
    pub optimizer: String,
    /// The schedule of its learning rate, as in `--schedule`.
    pub schedule: String,
    /// What sets it apart from other groups, by the name of the aspect: `optimizer`, `schedule`, `warmup` (`yes` or `no`),
    /// `peak` (the largest learning rate), `norm` (`pre` or `post`), `dataset`, `model`. Only what is compared is here.
    pub factors: BTreeMap<String, String>,
}

/// What `trial.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// A function of `config`.
    pub id: String,
    /// The name of its group.
    pub group: String,
    /// Everything that its results depend on.
    pub config: TrialConfig,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
    /// The SHA-256 of `metrics.jsonl` once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_sha256: Option<String>,
}

impl TrialRecord {
    /// Reads `trial.json` and `metrics.jsonl` in the folder of a trial that has ended.
    ///
    /// # Errors
    /// When a file is missing or damaged, they contradict each other, or they are of another trial than the folder.
    pub fn read(folder: &Path) -> Result<(Self, Vec<Metric>)> {
        let record: Self = read_json(&folder.join("trial.json"))?;
        let path = folder.join("metrics.jsonl");
        let bytes = read_packed(&path)?;
        let metrics = parse_metrics(&path, &bytes)?;
        agreement::check_trial(folder, &record, &metrics, &checksum::hex(Sha256::new_with_prefix(&bytes)))?;
        Ok((record, metrics))
    }
}

/// Everything that a trial's results depend on, but for the program itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialConfig {
    /// What it is for.
    pub phase: Phase,
    /// The data set.
    pub dataset: String,
    /// The hash of the text, where a file was given.
    pub text_sha256: Option<String>,
    /// The model with its keys.
    pub model: String,
    /// The optimizer with all its hyperparameters.
    pub optimizer: String,
    /// The schedule of the learning rate, with all its numbers.
    pub schedule: String,
    /// The largest global gradient norm; none for no clipping.
    pub clip: Option<f64>,
    /// Whether weight decay leaves out tensors of fewer than two dimensions.
    pub decay_matrices_only: bool,
    /// Examples per update.
    pub batch_size: usize,
    /// Updates.
    pub steps: u64,
    /// Updates between two evaluations.
    pub evaluate_every: u64,
    /// Whether training images are moved and mirrored at random.
    pub augment: bool,
    /// A training loss above it ends the trial as diverged.
    pub max_loss: f64,
    /// Whether every step is probed.
    pub probe: bool,
    /// The device.
    pub device: String,
    /// Whose operations the model runs on. What is not the default alone is written, so that ids stay what they were before there
    /// was a choice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ops: Operations,
    /// What the model computes in; written as [`Self::ops`] is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// The seed.
    pub seed: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TrialConfig {
    /// The trial's id: what it is in short, and a hash over everything in it.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("a config is plain data");
        let hash = Sha256::digest(json);
        let hash: String = hash.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        let optimizer = self.optimizer.split(':').next().unwrap_or_default();
        let phase = if self.phase == Phase::Tune { "tune-" } else { "" };
        format!("{phase}{optimizer}-seed{}-{hash}", self.seed)
    }
}

/// A data set and a model that groups are compared on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The data set, as in `--dataset`.
    pub dataset: String,
    /// The hash of the data, whatever files it came from; none in records of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// The model, as in `--model`.
    pub model: String,
    /// Classes that a prediction chooses from: of images, or characters.
    pub classes: usize,
    /// Trainable parameters.
    pub parameters: usize,
    /// Examples per update.
    pub batch_size: usize,
    /// Updates.
    pub steps: u64,
    /// Updates in a pass over the training data.
    pub steps_per_epoch: u64,
    /// Updates between two evaluations.
    pub evaluate_every: u64,
    /// The loss of the best prediction that ignores the input: the entropy of the classes' shares in the test data.
    pub constant_loss: f64,
    /// The least expected loss that any model can reach, where that is known.
    pub floor: Option<f64>,
    /// The files of the data set that are not as they were published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_differs: Vec<String>,
}

/// What `experiment.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// `shootout`, `schedules` or `warmup`.
    pub experiment: String,
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// When it began.
    pub started: String,
    /// All options, as in `config.toml`.
    pub config: serde_json::Value,
    /// What groups are compared on.
    pub workloads: Vec<Workload>,
    /// What is compared.
    pub groups: Vec<GroupConfig>,
    /// The seeds of the final trials.
    pub seeds: Vec<u64>,
    /// The device.
    pub device: String,
    /// The versions of what computes.
    pub versions: Versions,
    /// The commit that the program was built from, with `-dirty` where files differed from it; none outside a repository.
    pub commit: Option<String>,
    /// The programs that went on with the run and are not the one that began it, or were told something else; none in most runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued: Vec<Continuation>,
}

/// A program that went on with a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continuation {
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// When it went on.
    pub started: String,
    /// The versions of what computes.
    pub versions: Versions,
    /// As [`ExperimentRecord::commit`].
    pub commit: Option<String>,
}

/// The versions of what computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// This program.
    pub experiments: String,
    /// candle.
    pub candle: String,
    /// The operating system.
    pub os: String,
    /// The processor's architecture.
    pub arch: String,
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
}

/// All records of a finished run: what a report is made from.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub out: PathBuf,
    /// `experiment.json`.
    pub experiment: ExperimentRecord,
    /// `summary.json`.
    pub summary: Summary,
    /// `trial.json` and `metrics.jsonl` of each trial that the summary names: the final ones, then those of tuning.
    pub trials: Vec<(TrialRecord, Vec<Metric>)>,
}

impl Run {
    /// Reads the records in `out`. The statistics of the groups are those of the trials, computed anew.
    ///
    /// # Errors
    /// When a file is missing or damaged, the run has not finished, or files contradict each other.
    pub fn read(out: &Path) -> Result<Self> {
        let summary = out.join("summary.json");
        if !summary.exists() {
            bail!("`{}` has no summary.json: no run finished there", out.display());
        }
        let summary: Summary = read_json(&summary)?;
        let trials = summary.trials.iter().chain(&summary.tuning);
        let trials = trials.map(|trial| TrialRecord::read(&out.join("trials").join(&trial.id)));
        let mut run = Self {
            out: out.to_owned(),
            experiment: read_json(&out.join("experiment.json"))?,
            trials: trials.collect::<Result<_>>()?,
            summary,
        };
        agreement::check_run(&run)?;
        let Summary { groups, trials, .. } = &mut run.summary;
        *groups = groups.iter().map(|group| group.clone().measure(trials)).collect();
        Ok(run)
    }
}

/// Reads a JSON file.
///
/// # Errors
/// When the file is missing, is not what is expected there, or its checksum is of something else.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || anyhow::Ok(serde_json::from_value(checksum::unseal(serde_json::from_slice(&fs::read(path)?)?)?)?);
    read().with_context(|| format!("cannot read `{}`", path.display()))
}

/// Measurements in JSON: numbers, and words for what is not finite.
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// A number, or none for `null`.
    struct Number(Option<f64>);

    impl<'de> Deserialize<'de> for Number {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl de::Visitor<'_> for Visitor {
                type Value = Number;
                fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                    f.write_str("a number, \"inf\", \"-inf\", \"nan\" or null")
                }
                fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                    Ok(Number(Some(value)))
                }
                fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                    Ok(Number(Some(value as f64)))
                }
                fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                    Ok(Number(Some(value as f64)))
                }
                fn visit_unit<E>(self) -> Result<Number, E> {
                    Ok(Number(None))
                }
                fn visit_str<E: de::Error>(self, word: &str) -> Result<Number, E> {
                    match word {
                        "inf" => Ok(Number(Some(f64::INFINITY))),
                        "-inf" => Ok(Number(Some(f64::NEG_INFINITY))),
                        "nan" => Ok(Number(Some(f64::NAN))),
                        _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                    }
                }
            }
            deserializer.deserialize_any(Visitor)
        }
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match *value {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("nan"),
            value => serializer.serialize_str(if value > 0.0 { "inf" } else { "-inf" }),
        }
    }

    /// Records of before there were words have `null` for what is not finite.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Number::deserialize(deserializer)?.0.unwrap_or(f64::NAN))
    }

    /// What may not have been measured.
    pub mod optional {
        use super::Number;
        use serde::{Deserialize, Deserializer, Serializer};

        pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
            Ok(Number::deserialize(deserializer)?.0)
        }
    }
}

/// The folder that a run writes to. It is locked while this lives.
#[derive(Debug)]
pub struct OutDir {
    path: PathBuf,
    /// The folders that had to be made for it, deepest first.
    made: Vec<PathBuf>,
    /// The lock is the system's and goes with the process, however it ends.
    lock: File,
}

const LOCK: &str = "lock";

impl OutDir {
    /// Takes `path`, which must be an empty folder or not exist, and checks that it can be written to. A folder that holds nothing but
    /// what a run leaves that ended before it began to record is as good as empty.
    ///
    /// # Errors
    /// When it holds something, is a file, or cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.with_context(|| format!("OUT `{}`", path.display()))?;
                    if !is_left_by_a_start(&entry) {
                        let hint =
                            if path.join("experiment.json").exists() { "; `--resume` goes on with a run" } else { "" };
                        bail!("OUT `{}` is not empty, and results are never overwritten{hint}", path.display());
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("OUT `{}`", path.display())),
        }
        let missing = path.ancestors().filter(|dir| !dir.as_os_str().is_empty()).take_while(|dir| !dir.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let take = || {
            fs::create_dir_all(path)?;
            let lock = lock(path)?;
            remove_half_written(path)?;
            // Another process may have begun, and ended, since the folder was looked into.
            if path.join("experiment.json").exists() {
                bail!("another process has begun a run there");
            }
            Ok(lock)
        };
        match take() {
            Ok(lock) => Ok(Self { path: path.to_owned(), made, lock }),
            Err(error) => {
                remove_empty(&made);
                Err(error).with_context(|| format!("OUT `{}` cannot be written to", path.display()))
            }
        }
    }

    /// Takes a new folder `runs/<experiment>-<time>`.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn create_default(experiment: &str) -> Result<Self> {
        let runs = Path::new("runs");
        let is_new = !runs.exists();
        fs::create_dir_all(runs).context("the folder `runs` for results cannot be made; `--out` names another")?;
        let time = jiff::ZonedDateTime::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
        for n in 1u32.. {
            let name = if n == 1 { format!("{experiment}-{time}") } else { format!("{experiment}-{time}-{n}") };
            let path = runs.join(name);
            // To make a folder succeeds once, also where several processes try it at the same moment.
            match fs::create_dir(&path) {
                Ok(()) => {
                    let made: Vec<PathBuf> =
                        [path.clone()].into_iter().chain(is_new.then(|| runs.to_owned())).collect();
                    let out = Self::create(&path).inspect_err(|_| remove_empty(&made))?;
                    return Ok(Self { made, ..out });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("OUT `{}`", path.display())),
            }
        }
        bail!("every name for a folder in `runs` is taken")
    }

    /// Takes the folder of a run that began there, and removes what it left half-written.
    ///
    /// # Errors
    /// When no run began there, or another process is at work there.
    pub fn reopen(path: &Path) -> Result<Self> {
        if !path.join("experiment.json").exists() {
            let hint = if path.join(LOCK).exists() { "; the same command without `--resume` begins it" } else { "" };
            bail!("OUT `{}` holds no run to go on with: it has no experiment.json{hint}", path.display());
        }
        let lock = lock(path).with_context(|| format!("OUT `{}`", path.display()))?;
        remove_half_written(path)?;
        for name in ["trials", "tensorboard"] {
            let folder = path.join(name);
            if folder.exists() && !folder.is_dir() {
                bail!("`{}` is a file: it must be a folder, or not exist", folder.display());
            }
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                remove_half_written(&entry.path())?;
            }
        }
        Ok(Self { path: path.to_owned(), made: Vec::new(), lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file of trial `id`.
    pub fn trial_file(&self, id: &str, name: &str) -> PathBuf {
        self.path.join("trials").join(id).join(name)
    }

    /// Removes the lock, and the folders that were made for it as far as they are empty.
    pub fn discard(&self) {
        // One that cannot be removed holds something, which must stay.
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = self.lock.unlock();
        remove_empty(&self.made);
    }
}

fn remove_empty(folders: &[PathBuf]) {
    let _ = folders.iter().try_for_each(fs::remove_dir);
}

/// Removes the files of `folder` that were being written when their process ended.
fn remove_half_written(folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_half_written(&file.file_name()) {
            fs::remove_file(file.path()).with_context(|| format!("cannot remove `{}`", file.path().display()))?;
        }
    }
    Ok(())
}

fn is_half_written(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(PART) || name.ends_with(".part")
}

/// Whether an entry of a folder is the empty file that we lock, or one that was being written when its process ended.
fn is_left_by_a_start(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let is_lock = name == LOCK && entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
    is_lock || name.to_string_lossy().starts_with(PART)
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.with_context(|| format!("cannot write `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process is at work there"),
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(&path);
            let advice = "its file system cannot lock files: give an --out on another, such as a local disk";
            Err(error).context(advice)
        }
    }
}

/// What the name of a file that is being written begins with.
const PART: &str = ".part-";

/// Writes `value` as JSON with a checksum to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let value = checksum::seal(serde_json::to_value(value)?);
    write_text(path, &(serde_json::to_string_pretty(&value)? + "\n"))
}

/// Writes `text` to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes())
}

/// Writes `bytes` to `path`, whole or not at all: to a file beside it, which is synced and renamed. A link stays one, and what it
/// leads to is written; what is no regular file, such as a pipe or `/dev/stdout`, is written into.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || match place(path)? {
        Place::Into => File::options().append(true).open(path)?.write_all(bytes),
        Place::Of(path) => {
            // A bare name has the empty path for its folder, which no system finds.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut builder = tempfile::Builder::new();
            builder.prefix(PART);
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let mut file = builder.tempfile_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            // The rename itself; not every system lets a folder be opened for that.
            #[cfg(unix)]
            File::open(folder)?.sync_all()?;
            Ok(())
        }
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Whether `path` is a file that is replaced when it is written, or will be one.
pub fn is_replaced(path: &Path) -> bool {
    !matches!(place(path), Ok(Place::Into))
}

/// Where a file is written.
enum Place {
    /// Into what is there, which cannot be replaced by a file.
    Into,
    /// In place of this file.
    Of(PathBuf),
}

/// Follows `path` to what is written.
fn place(path: &Path) -> std::io::Result<Place> {
    match fs::metadata(path) {
        // A folder can be neither; writing says so.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => return Ok(Place::Into),
        // A link that leads nowhere is written as the file that it names. One that leads in a circle is an error.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut path = path.to_owned();
    while let Ok(target) = fs::read_link(&path) {
        // The system's own links stand for what a process has open, as `/dev/stdout` does, and need not name a file.
        if ["/dev", "/proc"].iter().any(|own| path.starts_with(own)) {
            return Ok(Place::Into);
        }
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Ok(Place::Of(path))
}

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
fn read_packed(path: &Path) -> Result<Vec<u8>> {
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

fn parse_metrics(path: &Path, bytes: &[u8]) -> Result<Vec<Metric>> {
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
    fn what_is_not_finite_is_told_from_what_was_not_measured() {
        let layer = LayerProbe {
            layer: "a".to_owned(),
            grad_norm: Some(f64::INFINITY),
            update_ratio: Some(f64::NEG_INFINITY),
            activation_max: Some(f64::NAN),
            attention_logit_max: None,
        };
        let metric = Metric::Probe { step: 2, update_ratio: f64::NAN, update_angle: None, layers: vec![layer] };
        let json = serde_json::to_string(&metric).unwrap();
        assert_eq!(
            json,
            "{\"kind\":\"probe\",\"step\":2,\"update_ratio\":\"nan\",\"update_angle\":null,\"layers\":[{\"layer\":\"a\",\
             \"grad_norm\":\"inf\",\"update_ratio\":\"-inf\",\"activation_max\":\"nan\",\"attention_logit_max\":null}]}"
        );
        let read: Metric = serde_json::from_str(&json).unwrap();
        // NaN is not equal to itself, but its text is.
        assert_eq!(format!("{read:?}"), format!("{metric:?}"));
        // As records were written before there were words, and whole numbers as others write them.
        for (json, expected) in [
            ("{\"kind\":\"eval\",\"step\":1,\"loss\":null,\"accuracy\":1,\"seconds\":0}", "loss: NaN"),
            ("{\"kind\":\"eval\",\"step\":1,\"loss\":2,\"accuracy\":1,\"seconds\":0}", "loss: 2.0"),
            (
                "{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":-1,\"lr\":1,\"grad_norm\":null,\"seconds\":0}",
                "grad_norm: None",
            ),
            ("{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":1e9,\"lr\":1,\"seconds\":0}", "grad_norm: None"),
        ] {
            let read = format!("{:?}", serde_json::from_str::<Metric>(json).unwrap());
            assert!(read.contains(expected), "{json}: {read}");
        }
        let wrong = "{\"kind\":\"eval\",\"step\":1,\"loss\":\"much\",\"accuracy\":1,\"seconds\":0}";
        let message = serde_json::from_str::<Metric>(wrong).unwrap_err().to_string();
        assert!(message.contains("\"much\"") && message.contains("\"inf\""), "{message}");
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

    #[test]
    fn a_discarded_folder_leaves_nothing_but_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutDir::create(&folder.path().join("a/b/c")).unwrap();
        assert!(folder.path().join("a/b/c").is_dir());
        out.discard();
        assert!(folder.path().is_dir() && !folder.path().join("a").exists());

        fs::create_dir(folder.path().join("mine")).unwrap();
        OutDir::create(&folder.path().join("mine")).unwrap().discard();
        assert!(folder.path().join("mine").is_dir());
    }

    #[test]
    fn a_folder_with_nothing_but_what_a_start_left_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let write = |name: &str, text: &str| {
            fs::create_dir_all(&out).unwrap();
            fs::write(out.join(name), text).unwrap();
        };
        write("lock", "");
        write(".part-abc", "{\"exp");
        let taken = OutDir::create(&out).unwrap();
        assert!(!out.join(".part-abc").exists());
        let busy = format!("{:#}", OutDir::create(&out).unwrap_err());
        assert!(busy.contains("another process is at work there"), "{busy}");
        taken.discard();
        assert!(out.is_dir() && fs::read_dir(&out).unwrap().next().is_none());
        // A file of this name that is not ours, and any other.
        for (name, text) in [("lock", "mine"), ("notes.part", "")] {
            write(name, text);
            let message = format!("{:#}", OutDir::create(&out).unwrap_err());
            assert!(message.contains("not empty"), "{message}");
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), text);
            fs::remove_file(out.join(name)).unwrap();
        }
    }

    #[test]
    fn written_text_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        for text in ["first", "second"] {
            write_text(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_text(&folder.path().join("none/summary.json"), "x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_stays_a_link() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("pages")).unwrap();
        fs::write(at("pages/old.html"), "old").unwrap();
        for (link, target, file) in [
            ("to_a_file", "pages/old.html", "pages/old.html"),
            ("to_a_link", "to_a_file", "pages/old.html"),
            ("to_nothing_yet", "pages/new.html", "pages/new.html"),
        ] {
            symlink(target, at(link)).unwrap();
            write_text(&at(link), link).unwrap();
            assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(target));
            assert!(fs::symlink_metadata(at(file)).unwrap().is_file());
            assert_eq!(fs::read_to_string(at(file)).unwrap(), link);
            assert!(is_replaced(&at(link)));
        }
        assert_eq!(fs::read_dir(at("pages")).unwrap().count(), 2, "nothing is left beside them");
        symlink("circle", at("circle")).unwrap();
        let message = format!("{:#}", write_text(&at("circle"), "x").unwrap_err());
        assert!(message.contains("circle"), "{message}");
        assert!(write_text(&at("pages"), "x").is_err(), "a folder is no file");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_written_into() {
        use std::{io::Read, os::unix::fs::FileTypeExt};
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write_text(&pipe, "page").unwrap();
        assert_eq!(reader.join().unwrap(), "page");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo() && !is_replaced(&pipe));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
