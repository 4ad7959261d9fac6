//! The measurements of a trial as an event file of TensorBoard, made from the records once the trial has ended.
//!
//! An event file is a sequence of records (length, its checksum, data, its checksum; checksums are CRC-32C, rotated and offset),
//! each holding an `Event` in protobuf. Scalars are `simple_value`s; hyperparameters are written for the HPARAMS tab. The fields
//! below are those of `event.proto`, `summary.proto` and the hparams plugin's `plugin_data.proto` that are needed.

use crate::{
    optimizer,
    record::{self, Metric, TrialRecord},
};
use anyhow::Result;
use prost::{Message, Oneof};
use std::{collections::BTreeMap, fs, path::Path};

/// The name of the event file.
pub const FILE: &str = "events.out.tfevents.0.descent";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds; here since the trial began.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Hparams {
    #[prost(oneof = "HparamsData", tags = "2, 3, 4")]
    data: Option<HparamsData>,
}

#[derive(Clone, PartialEq, Oneof)]
enum HparamsData {
    #[prost(message, tag = "2")]
    Experiment(HparamsExperiment),
    #[prost(message, tag = "3")]
    SessionStart(SessionStart),
    #[prost(message, tag = "4")]
    SessionEnd(SessionEnd),
}

#[derive(Clone, PartialEq, Message)]
struct HparamsExperiment {
    #[prost(message, repeated, tag = "4")]
    hparam_infos: Vec<HparamInfo>,
    #[prost(message, repeated, tag = "5")]
    metric_infos: Vec<MetricInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct HparamInfo {
    #[prost(string, tag = "1")]
    name: String,
    /// 1 a string, 2 a flag, 3 a number.
    #[prost(int32, tag = "4")]
    data_type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    name: Option<MetricName>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricName {
    #[prost(string, tag = "2")]
    tag: String,
}

#[derive(Clone, PartialEq, Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Value>,
    #[prost(string, tag = "4")]
    group_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct SessionEnd {
    /// 1 success, 2 failure.
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Flag(bool),
}

/// Writes the event file of a trial that has ended to `folder`, which is created. Numbers are rounded to f32, as TensorBoard
/// keeps them; a train or eval loss that is not finite is written as it is.
///
/// # Errors
/// When the file cannot be written.
pub fn write(folder: &Path, record: &TrialRecord, metrics: &[Metric]) -> Result<()> {
    let seconds = record.outcome.as_ref().map_or(0.0, |outcome| outcome.seconds);
    let mut events = vec![Event { wall_time: 0.0, step: 0, what: Some(What::FileVersion("brain.Event:2".to_owned())) }];
    let hparams = hparams(record);
    let infos = hparams.iter().map(|(name, value)| HparamInfo {
        name: name.clone(),
        data_type: match value.kind {
            Some(Kind::Number(_)) => 3,
            Some(Kind::Flag(_)) => 2,
            _ => 1,
        },
    });
    let metric = |tag: &str| MetricInfo { name: Some(MetricName { tag: tag.to_owned() }) };
    let experiment = HparamsExperiment {
        hparam_infos: infos.collect(),
        metric_infos: ["eval/loss", "eval/accuracy"].map(metric).into(),
    };
    let start = SessionStart { hparams, group_name: record.id.clone() };
    events.push(plugin(0.0, "_hparams_/experiment", HparamsData::Experiment(experiment)));
    events.push(plugin(0.0, "_hparams_/session_start_info", HparamsData::SessionStart(start)));
    let mut now = 0.0;
    for metric in metrics {
        let (step, scalars) = scalars(metric, &mut now);
        let value =
            |(tag, value): (String, f64)| SummaryValue { tag, simple_value: Some(value as f32), metadata: None };
        let summary = Summary { value: scalars.into_iter().map(value).collect() };
        events.push(Event { wall_time: now, step: step as i64, what: Some(What::Summary(summary)) });
    }
    let status = if record.outcome.as_ref().is_some_and(|outcome| outcome.diverged) { 2 } else { 1 };
    let end = SessionEnd { status, end_time_secs: seconds };
    events.push(plugin(seconds, "_hparams_/session_end_info", HparamsData::SessionEnd(end)));

    fs::create_dir_all(folder)?;
    record::write_bytes(&folder.join(FILE), &events.iter().flat_map(framed).collect::<Vec<u8>>())
}

fn plugin(wall_time: f64, tag: &str, data: HparamsData) -> Event {
    let content = Hparams { data: Some(data) }.encode_to_vec();
    let plugin_data = Some(PluginData { plugin_name: "hparams".to_owned(), content });
    let value = SummaryValue { tag: tag.to_owned(), simple_value: None, metadata: Some(Metadata { plugin_data }) };
    Event { wall_time, step: 0, what: Some(What::Summary(Summary { value: vec![value] })) }
}

/// What sets the trial apart, and every hyperparameter of its optimizer.
fn hparams(record: &TrialRecord) -> BTreeMap<String, Value> {
    let config = &record.config;
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    let texts = [
        ("group", record.group.as_str()),
        ("dataset", &config.dataset),
        ("model", &config.model),
        ("optimizer", config.optimizer.split(':').next().unwrap_or_default()),
        ("schedule", &config.schedule),
    ];
    kinds.extend(texts.map(|(key, text)| (key.to_owned(), Kind::Text(text.to_owned()))));
    let numbers =
        [("seed", config.seed as f64), ("batch_size", config.batch_size as f64), ("steps", config.steps as f64)];
    kinds.extend(numbers.map(|(key, number)| (key.to_owned(), Kind::Number(number))));
    if let Ok(rule) = optimizer::parse(&config.optimizer) {
        for (key, value) in optimizer::hyperparameters(&rule) {
            let kind = match value {
                serde_json::Value::Bool(flag) => Kind::Flag(flag),
                value => Kind::Number(value.as_f64().unwrap_or(f64::NAN)),
            };
            kinds.insert(key, kind);
        }
    }
    kinds.into_iter().map(|(key, kind)| (key, Value { kind: Some(kind) })).collect()
}

/// The step and the scalars of a line. A probe has no time of its own, and keeps that of the train line before it.
fn scalars(metric: &Metric, now: &mut f64) -> (u64, Vec<(String, f64)>) {
    let named = |values: &[(&str, Option<f64>)]| -> Vec<(String, f64)> {
        values.iter().filter_map(|(tag, value)| Some(((*tag).to_owned(), (*value)?))).collect()
    };
    match metric {
        Metric::Train { step, loss, lr, grad_norm, seconds, .. } => {
            *now = *seconds;
            let values = [("train/loss", Some(*loss)), ("train/lr", Some(*lr)), ("train/grad_norm", *grad_norm)];
            (*step, named(&values))
        }
        Metric::Eval { step, loss, accuracy, seconds } => {
            *now = *seconds;
            (*step, named(&[("eval/loss", Some(*loss)), ("eval/accuracy", Some(*accuracy))]))
        }
        Metric::Probe { step, update_ratio, update_angle, layers } => {
            let mut all = named(&[("probe/update_ratio", Some(*update_ratio)), ("probe/update_angle", *update_angle)]);
            for layer in layers {
                let values = [
                    ("grad_norm", layer.grad_norm),
                    ("update_ratio", layer.update_ratio),
                    ("activation_max", layer.activation_max),
                    ("attention_logit_max", layer.attention_logit_max),
                ];
                let values = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
                all.extend(values.map(|(name, value)| (format!("layers/{}/{name}", layer.layer), value)));
            }
            (*step, all)
        }
    }
}

/// An event as a record of the file.
fn framed(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), &data, &masked_crc(&data)].concat()
}

fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{LayerProbe, Phase, TrialConfig},
        train::Outcome,
    };

    /// The events of a file, its checksums checked.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let n = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(after[..4], masked_crc(length));
            let data = &after[4..4 + n];
            assert_eq!(after[4 + n..8 + n], masked_crc(data));
            events.push(Event::decode(data).unwrap());
            rest = &after[8 + n..];
        }
        events
    }

    #[test]
    fn the_checksum_is_that_of_the_format() {
        // CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720, B.4).
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // Rotated right by 15 bits, plus a282ead8.
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffau32.to_le_bytes());
    }

    #[test]
    fn what_is_measured_is_in_the_file() {
        let config = TrialConfig {
            phase: Phase::Final,
            dataset: "digits".to_owned(),
            text_sha256: None,
            model: "mlp".to_owned(),
            optimizer: "sgd:lr=0.5,nesterov=true,momentum=0.9".to_owned(),
            schedule: "constant:lr=0.5".to_owned(),
            clip: None,
            decay_matrices_only: false,
            batch_size: 32,
            steps: 2,
            evaluate_every: 2,
            augment: false,
            max_loss: 1e3,
            probe: true,
            device: "cpu".to_owned(),
            seed: 7,
        };
        let outcome = Outcome { seconds: 0.5, diverged: true, ..Outcome::default() };
        let record = TrialRecord { id: config.id(), group: "sgd".to_owned(), config, outcome: Some(outcome) };
        let layer = LayerProbe { layer: "blocks.0".to_owned(), grad_norm: Some(0.75), ..LayerProbe::default() };
        let metrics = [
            Metric::Train { step: 1, epoch: 0, loss: 2.5, lr: 0.5, grad_norm: None, seconds: 0.25 },
            Metric::Probe { step: 1, update_ratio: 0.125, update_angle: None, layers: vec![layer] },
            Metric::Eval { step: 2, loss: f64::NAN, accuracy: 0.5, seconds: 0.5 },
        ];
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard/id");
        write(&folder, &record, &metrics).unwrap();
        let events = read(&folder.join(FILE));
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        let mut scalars = Vec::new();
        let mut plugins = Vec::new();
        for event in &events[1..] {
            let Some(What::Summary(summary)) = &event.what else { panic!("{event:?}") };
            for value in &summary.value {
                match (&value.metadata, value.simple_value) {
                    (None, Some(x)) => scalars.push((value.tag.as_str(), event.step, event.wall_time, x.to_bits())),
                    (Some(metadata), None) => {
                        let plugin = metadata.plugin_data.as_ref().unwrap();
                        assert_eq!(plugin.plugin_name, "hparams");
                        plugins.push(Hparams::decode(&plugin.content[..]).unwrap().data.unwrap());
                    }
                    _ => panic!("{value:?}"),
                }
            }
        }
        let expected = [
            ("train/loss", 1, 0.25, 2.5f32.to_bits()),
            ("train/lr", 1, 0.25, 0.5f32.to_bits()),
            ("probe/update_ratio", 1, 0.25, 0.125f32.to_bits()),
            ("layers/blocks.0/grad_norm", 1, 0.25, 0.75f32.to_bits()),
            ("eval/loss", 2, 0.5, f32::NAN.to_bits()),
            ("eval/accuracy", 2, 0.5, 0.5f32.to_bits()),
        ];
        assert_eq!(scalars, expected);
        let [HparamsData::Experiment(experiment), HparamsData::SessionStart(start), HparamsData::SessionEnd(end)] =
            &plugins[..]
        else {
            panic!("{plugins:?}")
        };
        let kind = |key: &str| start.hparams[key].kind.clone().unwrap();
        assert_eq!((kind("lr"), kind("seed")), (Kind::Number(0.5), Kind::Number(7.0)));
        assert_eq!((kind("nesterov"), kind("optimizer")), (Kind::Flag(true), Kind::Text("sgd".to_owned())));
        assert_eq!(experiment.hparam_infos.len(), start.hparams.len());
        assert_eq!((end.status, end.end_time_secs), (2, 0.5));
    }
}
