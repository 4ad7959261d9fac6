//! A trial's measurements as TensorBoard reads them: an event file, with what the HPARAMS tab needs.
//!
//! An event file is a sequence of records. Each is the length of its data (u64, little endian), the masked CRC-32C of those
//! eight bytes, the data, and the masked CRC-32C of the data (both u32, little endian); the data is an `Event` in protobuf. The
//! messages stand in `proto`; their fields and numbers are those of TensorBoard's
//! [`event.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto) and
//! [`plugin_data.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto).

use crate::{
    record::{self, Metric, Phase, TrialRecord},
    run::{optimizer, train::Outcome},
};
use anyhow::{Context, Result};
use optim::Rule;
use prost::Message;
use proto::{
    Event, HParamsPluginData, PluginData, SessionLog, Status, Summary, SummaryMetadata, Tensor, Value, event, hparams,
    summary,
};
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
    /// Of the trial `record`, into `folder`, where nothing is written yet.
    ///
    /// # Errors
    /// When the optimizer in `record` is not one.
    pub fn new(folder: PathBuf, record: &TrialRecord) -> Result<Self> {
        let hyperparameters = hyperparameters(record).with_context(|| format!("trial `{}`", record.id))?;
        Ok(Self { folder, id: record.id.clone(), hyperparameters, file: None })
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
        record::write_bytes(&path, &self.encode(metrics, &kept, now()))?;
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
        Metric::Train { seconds, .. } | Metric::Eval { seconds, .. } => Some(*seconds),
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
fn hyperparameters(record: &TrialRecord) -> Result<BTreeMap<String, Value>> {
    let config = &record.config;
    let rule = optimizer::parse(&config.optimizer)?;
    let of_rule = optimizer::hyperparameters(&rule);
    let of_rule = of_rule.into_iter().filter_map(|(key, value)| match value {
        serde_json::Value::Bool(flag) => Some((key, Value::from(flag))),
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
        ("optimizer", rule.qualified_name().as_str().into()),
        ("schedule", config.schedule.as_str().into()),
        ("seed", (config.seed as f64).into()),
        ("batch_size", (config.batch_size as f64).into()),
        ("steps", (config.steps as f64).into()),
        ("augment", config.augment.into()),
        ("decay_matrices_only", config.decay_matrices_only.into()),
    ];
    let clip = config.clip.map(|clip| ("clip", clip.into()));
    let of_trial = of_trial.into_iter().chain(clip).map(|(key, value): (&str, Value)| (key.to_owned(), value));
    Ok(of_rule.chain(of_trial).collect())
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

/// The messages, as far as they are written here.
mod proto {
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(double, tag = "1")]
        pub wall_time: f64,
        #[prost(int64, tag = "2")]
        pub step: i64,
        #[prost(oneof = "event::What", tags = "3, 5, 7")]
        pub what: Option<event::What>,
    }

    pub mod event {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum What {
            #[prost(string, tag = "3")]
            FileVersion(String),
            #[prost(message, tag = "5")]
            Summary(super::Summary),
            #[prost(message, tag = "7")]
            SessionLog(super::SessionLog),
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionLog {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    impl SessionLog {
        /// The status of a start, which drops the events from its step on that came before.
        pub const START: i32 = 1;
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub value: Vec<summary::Value>,
    }

    pub mod summary {
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Value {
            #[prost(string, tag = "1")]
            pub tag: String,
            #[prost(oneof = "Kind", tags = "2, 8")]
            pub value: Option<Kind>,
            #[prost(message, optional, tag = "9")]
            pub metadata: Option<super::SummaryMetadata>,
        }

        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Kind {
            #[prost(float, tag = "2")]
            SimpleValue(f32),
            #[prost(message, tag = "8")]
            Tensor(super::Tensor),
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SummaryMetadata {
        #[prost(message, optional, tag = "1")]
        pub plugin_data: Option<PluginData>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PluginData {
        #[prost(string, tag = "1")]
        pub plugin_name: String,
        #[prost(bytes = "vec", tag = "2")]
        pub content: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        #[prost(int32, tag = "1")]
        pub dtype: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
    }

    impl Tensor {
        /// An f32 vector of length 0, for values that are all metadata.
        pub fn empty() -> Self {
            const FLOAT: i32 = 1;
            Self { dtype: FLOAT, shape: Some(Shape { dim: vec![Dimension { size: 0 }] }) }
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "2")]
        pub dim: Vec<Dimension>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dimension {
        #[prost(int64, tag = "1")]
        pub size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HParamsPluginData {
        #[prost(int32, tag = "1")]
        pub version: i32,
        #[prost(oneof = "hparams::Data", tags = "3, 4")]
        pub data: Option<hparams::Data>,
    }

    pub mod hparams {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Data {
            #[prost(message, tag = "3")]
            SessionStartInfo(super::SessionStartInfo),
            #[prost(message, tag = "4")]
            SessionEndInfo(super::SessionEndInfo),
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionStartInfo {
        #[prost(btree_map = "string, message", tag = "1")]
        pub hparams: BTreeMap<String, Value>,
        #[prost(string, tag = "4")]
        pub group_name: String,
        #[prost(double, tag = "5")]
        pub start_time_secs: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionEndInfo {
        #[prost(enumeration = "Status", tag = "1")]
        pub status: i32,
        #[prost(double, tag = "2")]
        pub end_time_secs: f64,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    pub enum Status {
        Unknown = 0,
        Success = 1,
        Failure = 2,
        Running = 3,
    }

    /// `google.protobuf.Value`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(oneof = "value::Kind", tags = "2, 3, 4")]
        pub kind: Option<value::Kind>,
    }

    pub mod value {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Kind {
            #[prost(double, tag = "2")]
            Number(f64),
            #[prost(string, tag = "3")]
            Text(String),
            #[prost(bool, tag = "4")]
            Flag(bool),
        }
    }

    impl From<f64> for Value {
        fn from(number: f64) -> Self {
            Self { kind: Some(value::Kind::Number(number)) }
        }
    }

    impl From<&str> for Value {
        fn from(text: &str) -> Self {
            Self { kind: Some(value::Kind::Text(text.to_owned())) }
        }
    }

    impl From<bool> for Value {
        fn from(flag: bool) -> Self {
            Self { kind: Some(value::Kind::Flag(flag)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// A trial, and its event file as made by TensorBoard's own messages and record writer.
    #[derive(Deserialize)]
    struct Case {
        name: String,
        trial: TrialRecord,
        metrics: Vec<Metric>,
        /// Each record in hexadecimal digits.
        records: Vec<String>,
    }

    fn cases() -> Vec<Case> {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/fixtures/tensorboard.json")).unwrap();
        assert!(cases.len() >= 3);
        cases
    }

    /// With training time for the time of day, as in the fixtures.
    #[test]
    fn a_file_is_what_tensorboard_itself_would_write() {
        for case in cases() {
            let events = Events::new(PathBuf::new(), &case.trial).unwrap();
            let now = case.metrics.iter().filter_map(seconds).next_back().unwrap_or(0.0);
            let mut bytes = events.encode(&case.metrics, &Kept::default(), now);
            if let Some(outcome) = &case.trial.outcome {
                frame(&Event::end(outcome, outcome.seconds).encode_to_vec(), &mut bytes);
            }
            let mut rest = bytes.as_slice();
            for (i, expected) in case.records.iter().enumerate() {
                let (found, left) = rest.split_at_checked(expected.len() / 2).unwrap_or((rest, &[]));
                let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(found, *expected, "{}, record {i}", case.name);
                rest = left;
            }
            assert!(rest.is_empty(), "{}: {} bytes more than expected", case.name, rest.len());
        }
    }

    /// Values by tag with their steps and times, as a reader of the folder's files gets them.
    fn scalars_in(folder: &Path) -> Vec<(String, i64, f64, f32)> {
        let mut scalars = Vec::new();
        for path in event_files(folder).unwrap() {
            let bytes = fs::read(path).unwrap();
            let (mut rest, mut events) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                events.push(Event::decode(take(&mut rest).expect("a whole record")).unwrap());
            }
            if let Some(first) = events.first() {
                assert_eq!(first.what, Some(event::What::FileVersion("brain.Event:2".to_owned())));
            }
            for event in &events {
                let Some(event::What::Summary(summary)) = &event.what else { continue };
                for value in &summary.value {
                    if let Some(summary::Kind::SimpleValue(number)) = value.value {
                        scalars.push((value.tag.clone(), event.step, event.wall_time, number));
                    }
                }
            }
        }
        scalars
    }

    #[test]
    fn a_file_has_each_step_once_as_soon_as_it_is_measured_and_at_its_real_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard/adamw-seed0");
        let Case { trial, metrics, .. } = cases().remove(0);
        let began = now();
        let mut events = Events::new(folder.clone(), &trial).unwrap();
        events.go_on_from(&[]).unwrap();
        for metric in &metrics {
            let before = scalars_in(&folder).len();
            events.write(metric).unwrap();
            assert!(scalars_in(&folder).len() > before);
        }
        let whole = scalars_in(&folder);
        let tag = |tag: &str| -> Vec<_> {
            let own = whole.iter().filter(|scalar| scalar.0 == tag);
            own.map(|(_, step, _, value)| (*step, *value)).collect()
        };
        assert_eq!(tag("train/loss"), [(1, 2.5), (10, 0.1)]);
        assert_eq!(tag("train/lr"), [(1, 1e-3), (10, 5e-4)]);
        assert_eq!(tag("train/grad_norm"), [(10, 0.75)]);
        assert_eq!(tag("eval/accuracy"), [(10, 0.0)]);
        assert_eq!(tag("probe/update_angle"), [(10, 90.0)]);
        assert_eq!(tag("layers/blocks.0/attention_logit_max"), [(1, 7.5)]);
        assert_eq!(whole.iter().filter(|scalar| scalar.0.starts_with("layers/")).count(), 6);
        assert!(whole.iter().all(|(_, _, time, _)| (began..=now()).contains(time)));

        // It goes on from each measurement once and again, after a stop, after a kill that left a part of a record, where the file is
        // another trial's, and where it is gone.
        let path = event_files(&folder).unwrap().remove(0);
        let bytes = fs::read(&path).unwrap();
        let other: Vec<u8> = bytes.iter().rev().copied().collect();
        let untimed = |scalars: &[(String, i64, f64, f32)]| -> Vec<_> {
            scalars.iter().map(|(tag, step, _, value)| (tag.clone(), *step, value.to_bits())).collect()
        };
        for kept in 0..=metrics.len() {
            for (left, is_whole) in
                [(&bytes[..], true), (&bytes[..bytes.len() - 3], false), (&other, false), (&[], false)]
            {
                for path in event_files(&folder).unwrap() {
                    fs::remove_file(path).unwrap();
                }
                fs::write(folder.join("events.out.tfevents.1.descent"), left).unwrap();
                for again in [false, true] {
                    let mut events = Events::new(folder.clone(), &trial).unwrap();
                    events.go_on_from(&metrics[..kept]).unwrap();
                    let found = scalars_in(&folder);
                    assert_eq!(untimed(&found), untimed(&whole[..found.len()]), "{kept}");
                    if is_whole && !again {
                        assert_eq!(found, whole[..found.len()], "what is there keeps its time");
                    }
                    metrics[kept..].iter().for_each(|metric| events.write(metric).unwrap());
                    let found = scalars_in(&folder);
                    assert_eq!(untimed(&found), untimed(&whole), "{kept}");
                    assert!(found.windows(2).all(|pair| pair[0].2 <= pair[1].2), "{found:?}");
                }
            }
        }
    }

    #[test]
    fn an_optimizer_that_is_none_is_named() {
        let Case { mut trial, .. } = cases().remove(0);
        trial.config.optimizer = "adamx:lr=1".to_owned();
        let folder = tempfile::tempdir().unwrap();
        let message = format!("{:#}", Events::new(folder.path().join("new"), &trial).unwrap_err());
        assert!(message.contains(&trial.id) && message.contains("adamx"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
