//! A trial's measurements as TensorBoard reads them: an event file, with what the HPARAMS tab needs.
//!
//! An event file is a sequence of records. Each is the length of its data (u64, little endian), the masked CRC-32C of those
//! eight bytes, the data, and the masked CRC-32C of the data (both u32, little endian); the data is an `Event` in protobuf. The
//! messages stand in `proto`; their fields and numbers are those of TensorBoard's
//! [`event.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto) and
//! [`plugin_data.proto`](https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto).

use crate::{
    optimizer,
    record::{self, Metric, Phase, TrialRecord},
};
use anyhow::{Context, Result};
use optim::Rule;
use prost::Message;
use proto::{
    Event, HParamsPluginData, PluginData, Status, Summary, SummaryMetadata, Tensor, Value, event, hparams, summary,
};
use std::{collections::BTreeMap, fs, path::Path};

/// The name of an event file; TensorBoard takes a file for one that has `tfevents` in its name.
pub const FILE_NAME: &str = "events.out.tfevents.0.descent";

/// Writes the event file of a trial into `folder`, which is made where it is missing, whole or not at all: a function of
/// `record` and `metrics`.
///
/// | tag | of |
/// | --- | --- |
/// | `train/loss`, `train/lr`, `train/grad_norm` | [`Metric::Train`] |
/// | `eval/loss`, `eval/accuracy` | [`Metric::Eval`] |
/// | `probe/update_ratio`, `probe/update_angle` (degrees) | [`Metric::Probe`] |
/// | `layers/<layer>/grad_norm`, `../update_ratio`, `../activation_max`, `../attention_logit_max` | its layers |
///
/// Values are rounded to f32, as TensorBoard's are. Wall time is the training time in seconds, from 0 and so from 1970: the
/// axis RELATIVE is right. A probe has the time of the metric before it.
///
/// The trial is a session of its own in the HPARAMS tab, with its group, workload, optimizer, all hyperparameters, schedule and
/// seed. There is no experiment summary, so that the tab shows the union of what all trials have: TensorBoard looks at one
/// summary only, and no trial knows the hyperparameters of another's optimizer.
///
/// # Errors
/// When the optimizer in `record` is not one, or the file cannot be written.
pub fn write(folder: &Path, record: &TrialRecord, metrics: &[Metric]) -> Result<()> {
    let bytes = encode(record, metrics)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    record::write_bytes(&folder.join(FILE_NAME), &bytes)
}

fn encode(record: &TrialRecord, metrics: &[Metric]) -> Result<Vec<u8>> {
    let version = event::What::FileVersion("brain.Event:2".to_owned());
    let mut events = vec![Event { wall_time: 0.0, step: 0, what: Some(version) }];
    let start = hparams::Data::SessionStartInfo(proto::SessionStartInfo {
        hparams: hyperparameters(record).with_context(|| format!("trial `{}`", record.id))?,
        group_name: record.id.clone(),
        start_time_secs: 0.0,
    });
    events.push(Event::new(0.0, 0, vec![session("_hparams_/session_start_info", start)]));
    let mut now = 0.0;
    for metric in metrics {
        let (step, values) = scalars(metric);
        if let Metric::Train { seconds, .. } | Metric::Eval { seconds, .. } = metric {
            now = *seconds;
        }
        let values = values.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?)));
        events.push(Event::new(now, step, values.collect()));
    }
    if let Some(outcome) = &record.outcome {
        let status = if outcome.diverged { Status::Failure } else { Status::Success };
        let end = proto::SessionEndInfo { status: status.into(), end_time_secs: outcome.seconds };
        let end = session("_hparams_/session_end_info", hparams::Data::SessionEndInfo(end));
        events.push(Event::new(outcome.seconds, outcome.steps, vec![end]));
    }
    let mut bytes = Vec::new();
    events.iter().for_each(|event| frame(&event.encode_to_vec(), &mut bytes));
    Ok(bytes)
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
        ("optimizer", rule.head().as_str().into()),
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
        #[prost(oneof = "event::What", tags = "3, 5")]
        pub what: Option<event::What>,
    }

    pub mod event {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum What {
            #[prost(string, tag = "3")]
            FileVersion(String),
            #[prost(message, tag = "5")]
            Summary(super::Summary),
        }
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
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/fixtures/tensorboard.json")).unwrap();
        assert!(cases.len() >= 3);
        cases
    }

    /// The data of each record of an event file; checks lengths and CRCs.
    fn records(bytes: &[u8]) -> Vec<&[u8]> {
        let mut rest = bytes;
        let mut take = |n: usize| {
            let (taken, left) = rest.split_at(n);
            rest = left;
            taken
        };
        let mut left = bytes.len();
        let mut records = Vec::new();
        while left > 0 {
            let length = take(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let crc_of_length = u32::from_le_bytes(take(4).try_into().unwrap());
            let data = take(size);
            let crc = u32::from_le_bytes(take(4).try_into().unwrap());
            assert_eq!((crc_of_length, crc), (masked_crc(length), masked_crc(data)));
            records.push(data);
            left -= 16 + size;
        }
        records
    }

    #[test]
    fn a_file_is_what_tensorboard_itself_would_write() {
        for case in cases() {
            let bytes = encode(&case.trial, &case.metrics).unwrap();
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

    #[test]
    fn what_was_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard/adamw-seed0");
        let Case { trial, metrics, .. } = cases().remove(0);
        write(&folder, &trial, &metrics[..1]).unwrap();
        write(&folder, &trial, &metrics).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the second write replaces the first");
        let bytes = fs::read(folder.join(FILE_NAME)).unwrap();
        let events: Vec<Event> = records(&bytes).into_iter().map(|data| Event::decode(data).unwrap()).collect();
        assert_eq!(events[0].what, Some(event::What::FileVersion("brain.Event:2".to_owned())));

        let mut scalars = Vec::new();
        for event in &events[1..] {
            let Some(event::What::Summary(summary)) = &event.what else { panic!("{event:?} is no summary") };
            for value in &summary.value {
                if let Some(summary::Kind::SimpleValue(number)) = value.value {
                    scalars.push((value.tag.as_str(), event.step, event.wall_time, number));
                }
            }
        }
        let tag = |tag: &str| -> Vec<_> {
            scalars
                .iter()
                .filter(|scalar| scalar.0 == tag)
                .map(|(_, step, time, value)| (*step, *time, *value))
                .collect()
        };
        assert_eq!(tag("train/loss"), [(1, 0.25, 2.5), (10, 1.5, 0.1)]);
        assert_eq!(tag("train/lr"), [(1, 0.25, 1e-3), (10, 1.5, 5e-4)]);
        assert_eq!(tag("train/grad_norm"), [(10, 1.5, 0.75)]);
        assert_eq!(tag("eval/accuracy"), [(10, 1.5, 0.0)]);
        assert_eq!(tag("probe/update_angle"), [(10, 1.5, 90.0)]);
        assert_eq!(tag("layers/blocks.0/attention_logit_max"), [(1, 0.25, 7.5)]);
        assert_eq!(scalars.iter().filter(|scalar| scalar.0.starts_with("layers/")).count(), 6);
    }

    #[test]
    fn an_optimizer_that_is_none_is_named() {
        let Case { mut trial, metrics, .. } = cases().remove(0);
        trial.config.optimizer = "adamx:lr=1".to_owned();
        let folder = tempfile::tempdir().unwrap();
        let message = format!("{:#}", write(folder.path(), &trial, &metrics).unwrap_err());
        assert!(message.contains(&trial.id) && message.contains("adamx"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
