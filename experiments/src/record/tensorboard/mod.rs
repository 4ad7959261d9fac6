//! A trial's measurements as TensorBoard reads them: an event file, with what the HPARAMS tab needs.
//!
//! An event file is a sequence of records. Each is the length of its data (u64, little endian), the masked CRC-32C of those
//! eight bytes, the data, and the masked CRC-32C of the data (both u32, little endian); the data is an `Event` in protobuf. The
//! messages stand in `proto.rs`; their fields and numbers are those of TensorBoard's
//! [`event.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto) and
//! [`plugin_data.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto).

mod proto;

use super::{
    files::write_bytes,
    metric::Metric,
    outcome::Outcome,
    trial::{Phase, TrialRecord},
};
use crate::config::augmentation::Augmentation;
use anyhow::{Context, Result};
use prost::Message;
use proto::{
    Event, HParamsPluginData, PluginData, SessionLog, Status, Summary, SummaryMetadata, Tensor, Value, event, hparams,
    summary,
};
use serde_json::Map;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

const SESSION_START: &str = "_hparams_/session_start_info";
const SESSION_END: &str = "_hparams_/session_end_info";

/// The event file of a running trial, written as measurements come: TensorBoard shows a trial while it goes on.
///
/// | tag | of |
/// | --- | --- |
/// | `train/loss`, `train/lr`, `train/grad_norm` | [`Metric::Train`] |
/// | `eval/loss`, `eval/accuracy` | [`Metric::Eval`] |
/// | `eval/ema_loss`, `eval/ema_accuracy` | [`Metric::Ema`] |
/// | `probe/update_ratio`, `probe/update_angle` (degrees) | [`Metric::Probe`] |
/// | `layers/<layer>/grad_norm`, `../update_ratio`, `../activation_max`, `../attention_logit_max` | its layers |
///
/// Values are rounded to f32, as TensorBoard's are. Wall time is the time of day at which a line was written.
///
/// Where a trial goes on from a checkpoint, what its files have beyond that is cut off, and it gets another file: no step is there
/// twice. That file begins with the mark of a restart, by which a TensorBoard that has read what was cut off drops it.
///
/// The trial is a session of its own in the HPARAMS tab, with its group, workload, optimizer, all hyperparameters, schedule and
/// seed. There is no experiment summary, so that the tab shows the union of what all trials have: TensorBoard looks at one
/// summary only, and no trial knows the hyperparameters of another's optimizer.
#[derive(Debug)]
pub struct Events {
    folder: PathBuf,
    id: String,
    hyperparameters: BTreeMap<String, Value>,
    /// None until the trial begins or goes on.
    file: Option<(PathBuf, File)>,
}

impl Events {
    /// Of the trial `record`, into `folder`, where nothing is written yet. Its optimizer has this name and these hyperparameters.
    pub fn new(
        folder: PathBuf,
        record: &TrialRecord,
        optimizer: &str,
        of_optimizer: Map<String, serde_json::Value>,
    ) -> Self {
        let hyperparameters = hyperparameters(record, optimizer, of_optimizer);
        Self { folder, id: record.id.clone(), hyperparameters, file: None }
    }

    /// Begins a file. The trial has `metrics` so far: what the files of before lack of them goes into this one.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn go_on_from(&mut self, metrics: &[Metric]) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot create `{}`", self.folder.display()))?;
        let files = event_files(&self.folder)?;
        let kept = Kept::cut(&files, metrics)?;
        // TensorBoard reads files in the order of their names.
        let number = |path: &PathBuf| path.file_name()?.to_str()?.split('.').nth(3)?.parse::<u64>().ok();
        let after = files.iter().filter_map(number).max().map_or(0, |number| number.saturating_add(1));
        let path = self.folder.join(format!("events.out.tfevents.{}.descent", after.max(now() as u64)));
        write_bytes(&path, &self.encode(metrics, &kept, now()))?;
        let open = File::options().append(true).open(&path);
        self.file = Some((path.clone(), open.with_context(|| format!("cannot write `{}`", path.display()))?));
        Ok(())
    }

    /// Appends a measurement.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, metric: &Metric) -> Result<()> {
        self.append(&Event::of(metric, now()))
    }

    /// Appends how the trial ended, and makes all durable.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn end(&mut self, outcome: &Outcome) -> Result<()> {
        self.append(&Event::end(outcome, now()))?;
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_data().with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut bytes = Vec::new();
        frame(&event.encode_to_vec(), &mut bytes);
        file.write_all(&bytes).with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// The beginning of a file, with those of `metrics` that are not kept. Their times are what is known, and training time.
    fn encode(&self, metrics: &[Metric], kept: &Kept, now: f64) -> Vec<u8> {
        let (before, rest) = metrics.split_at(kept.metrics);
        let all = metrics.iter().filter_map(seconds).next_back().unwrap_or(0.0);
        let start = kept.start.unwrap_or(now - all);
        let event = |what| Event { wall_time: start, step: 0, what: Some(what) };
        let mut events = vec![event(event::What::FileVersion("brain.Event:2".to_owned()))];
        if kept.start.is_some() {
            let step = before.last().map_or(0, |metric| scalars(metric).0 as i64 + 1);
            let restart = event(event::What::SessionLog(SessionLog { status: SessionLog::START }));
            events.push(Event { step, wall_time: now, ..restart });
        } else {
            let start = hparams::Data::SessionStartInfo(proto::SessionStartInfo {
                hparams: self.hyperparameters.clone(),
                group_name: self.id.clone(),
                start_time_secs: start,
            });
            let value = vec![session(SESSION_START, start)];
            events.push(event(event::What::Summary(Summary { value })));
        }
        let known = kept.time.unwrap_or(start);
        let trained = before.iter().filter_map(seconds).next_back().unwrap_or(0.0);
        let mut time = known;
        events.extend(rest.iter().map(|metric| {
            time = seconds(metric).map_or(time, |seconds| known + (seconds - trained)).min(now);
            Event::of(metric, time)
        }));
        let mut bytes = Vec::new();
        events.iter().for_each(|event| frame(&event.encode_to_vec(), &mut bytes));
        bytes
    }
}

/// The training time of a metric, where it has one.
fn seconds(metric: &Metric) -> Option<f64> {
    match metric {
        Metric::Train { seconds, .. } | Metric::Eval { seconds, .. } | Metric::Ema { seconds, .. } => Some(*seconds),
        Metric::Probe { .. } => None,
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The event files in `folder`, the oldest first.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    // TensorBoard takes a file for one that has this in its name.
    let is_event_file =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"));
    let mut paths: Vec<PathBuf> = paths.filter(is_event_file).collect();
    paths.sort();
    Ok(paths)
}

/// What event files have of a trial's measurements.
#[derive(Default)]
struct Kept {
    /// How many of them, from the first one on.
    metrics: usize,
    /// When the trial began.
    start: Option<f64>,
    /// When the last of them was written.
    time: Option<f64>,
}

impl Kept {
    /// Cuts off `files` from the first record on that is damaged, or is neither of `metrics` nor of the beginning.
    fn cut(files: &[PathBuf], metrics: &[Metric]) -> Result<Self> {
        let (mut kept, mut agree) = (Self::default(), true);
        for path in files {
            let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let mut rest = &bytes[..];
            while agree && !rest.is_empty() {
                let mut next = rest;
                agree = take(&mut next).is_some_and(|data| kept.take(data, metrics));
                if agree {
                    rest = next;
                }
            }
            if !rest.is_empty() {
                let length = (bytes.len() - rest.len()) as u64;
                let cut = File::options().write(true).open(path).and_then(|file| file.set_len(length));
                cut.with_context(|| format!("cannot write `{}`", path.display()))?;
            }
        }
        Ok(kept)
    }

    /// Counts a record in, unless it does not belong there.
    fn take(&mut self, data: &[u8], metrics: &[Metric]) -> bool {
        let Ok(event) = Event::decode(data) else { return false };
        let Some(event::What::Summary(summary)) = &event.what else { return event.what.is_some() };
        if summary.value.first().is_some_and(|value| value.tag == SESSION_START) {
            self.start = Some(event.wall_time);
            return true;
        }
        let is_next = |metric: &Metric| Event::of(metric, event.wall_time).encode_to_vec() == data;
        let is_kept = self.start.is_some() && metrics.get(self.metrics).is_some_and(is_next);
        if is_kept {
            (self.metrics, self.time) = (self.metrics + 1, Some(event.wall_time));
        }
        is_kept
    }
}

/// Takes the data of a record from the beginning of `bytes`; none where it is damaged or not whole.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut part = |length: usize| {
        let (part, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(part)
    };
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let length = part(8)?;
    (number(part(4)?) == masked_crc(length)).then_some(())?;
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let data = part(usize::try_from(length).ok()?)?;
    (number(part(4)?) == masked_crc(data)).then_some(data)
}

/// Appends a record.
fn frame(data: &[u8], bytes: &mut Vec<u8>) {
    let length = (data.len() as u64).to_le_bytes();
    for part in [&length[..], data] {
        bytes.extend(part);
        bytes.extend(masked_crc(part).to_le_bytes());
    }
}

/// A CRC-32C that can stand beside what it is of without being a CRC of a CRC.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The step of a metric, and its values by tag.
fn scalars(metric: &Metric) -> (u64, Vec<(String, Option<f64>)>) {
    let named = |group: &str, values: &[(&str, Option<f64>)]| -> Vec<(String, Option<f64>)> {
        values.iter().map(|(name, value)| (format!("{group}/{name}"), *value)).collect()
    };
    match metric {
        Metric::Train { step, loss, lr, grad_norm, .. } => {
            (*step, named("train", &[("loss", Some(*loss)), ("lr", Some(*lr)), ("grad_norm", *grad_norm)]))
        }
        Metric::Eval { step, loss, accuracy, .. } => {
            (*step, named("eval", &[("loss", Some(*loss)), ("accuracy", Some(*accuracy))]))
        }
        Metric::Ema { step, loss, accuracy, .. } => {
            (*step, named("eval", &[("ema_loss", Some(*loss)), ("ema_accuracy", Some(*accuracy))]))
        }
        Metric::Probe { step, update_ratio, update_angle, layers } => {
            let own = [("update_ratio", Some(*update_ratio)), ("update_angle", *update_angle)];
            let of_layers = layers.iter().flat_map(|layer| {
                let values = [
                    ("grad_norm", layer.grad_norm),
                    ("update_ratio", layer.update_ratio),
                    ("activation_max", layer.activation_max),
                    ("attention_logit_max", layer.attention_logit_max),
                ];
                named(&format!("layers/{}", layer.layer), &values)
            });
            (*step, named("probe", &own).into_iter().chain(of_layers).collect())
        }
    }
}

/// All that a trial may differ in from others, by name.
fn hyperparameters(
    record: &TrialRecord,
    optimizer: &str,
    of_optimizer: Map<String, serde_json::Value>,
) -> BTreeMap<String, Value> {
    let config = &record.config;
    let of_optimizer = of_optimizer.into_iter().filter_map(|(key, value)| match value {
        serde_json::Value::Bool(flag) => Some((key, Value::from(flag))),
        serde_json::Value::String(name) => Some((key, Value::from(name.as_str()))),
        value => Some((key, Value::from(value.as_f64()?))),
    });
    let phase = match config.phase {
        Phase::Tune => "tune",
        Phase::Final => "final",
    };
    let of_trial = [
        ("group", record.group.as_str().into()),
        ("phase", phase.into()),
        ("dataset", config.dataset.as_str().into()),
        ("model", config.model.as_str().into()),
        ("optimizer", optimizer.into()),
        ("schedule", config.schedule.as_str().into()),
        ("seed", (config.seed as f64).into()),
        ("batch_size", (config.batch_size as f64).into()),
        ("steps", (config.steps as f64).into()),
        ("augment", (config.augment != Augmentation::None).into()),
        ("decay_matrices_only", config.decay_matrices_only.into()),
    ];
    let clip = config.clip.map(|clip| ("clip", clip.into()));
    let ema = config.ema.map(|decay| ("ema", decay.into()));
    let lookahead = config.lookahead.map(|every| ("lookahead", (every as f64).into()));
    let of_trial = of_trial
        .into_iter()
        .chain(clip)
        .chain(ema)
        .chain(lookahead)
        .map(|(key, value): (&str, Value)| (key.to_owned(), value));
    of_optimizer.chain(of_trial).collect()
}

fn scalar(tag: String, value: f64) -> summary::Value {
    summary::Value { tag, value: Some(summary::Kind::SimpleValue(value as f32)), metadata: None }
}

/// A value that carries `data` to the HPARAMS tab.
fn session(tag: &str, data: hparams::Data) -> summary::Value {
    let content = HParamsPluginData { version: 0, data: Some(data) }.encode_to_vec();
    let plugin_data = PluginData { plugin_name: "hparams".to_owned(), content };
    summary::Value {
        tag: tag.to_owned(),
        value: Some(summary::Kind::Tensor(Tensor::empty())),
        metadata: Some(SummaryMetadata { plugin_data: Some(plugin_data) }),
    }
}

impl Event {
    fn new(wall_time: f64, step: u64, value: Vec<summary::Value>) -> Self {
        Self { wall_time, step: step as i64, what: Some(event::What::Summary(Summary { value })) }
    }

    fn of(metric: &Metric, wall_time: f64) -> Self {
        let (step, values) = scalars(metric);
        let values = values.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?)));
        Self::new(wall_time, step, values.collect())
    }

    fn end(outcome: &Outcome, wall_time: f64) -> Self {
        let status = if outcome.diverged { Status::Failure } else { Status::Success };
        let end = proto::SessionEndInfo { status: status.into(), end_time_secs: wall_time };
        Self::new(wall_time, outcome.steps, vec![session(SESSION_END, hparams::Data::SessionEndInfo(end))])
    }
}

#[cfg(test)]
mod tests;
