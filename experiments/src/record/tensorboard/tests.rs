//! Event files against TensorBoard's own, and what they are after a stop.

use super::*;
use crate::record::hyperparameters;
use optim::Rule;
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
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/fixtures/tensorboard.json")).unwrap();
    assert!(cases.len() >= 3);
    cases
}

fn events_of(folder: PathBuf, trial: &TrialRecord) -> Events {
    let rule = optim::by_name(&trial.config.optimizer).unwrap();
    Events::new(folder, trial, &rule.qualified_name(), hyperparameters::of(&rule))
}

/// With training time for the time of day, as in the fixtures.
#[test]
fn a_file_is_what_tensorboard_itself_would_write() {
    for case in cases() {
        let events = events_of(PathBuf::new(), &case.trial);
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
    let mut events = events_of(folder.clone(), &trial);
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
        for (left, is_whole) in [(&bytes[..], true), (&bytes[..bytes.len() - 3], false), (&other, false), (&[], false)]
        {
            for path in event_files(&folder).unwrap() {
                fs::remove_file(path).unwrap();
            }
            fs::write(folder.join("events.out.tfevents.1.descent"), left).unwrap();
            for again in [false, true] {
                let mut events = events_of(folder.clone(), &trial);
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
