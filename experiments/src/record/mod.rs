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
//! OUT/report.html, OUT/*.svg       the report and its pictures; while the run trains, the report on what has ended so far
//! OUT/log.txt                      the log
//! OUT/lock                         locked by the process that writes here
//! ```
//!
//! Files other than logs and measurements appear whole or not at all. Measurements that are not finite, for which JSON has no
//! numbers, are written as `"inf"`, `"-inf"` and `"nan"`; `null` is what was not measured.
//! Each JSON file ends with a checksum of its own, and `trial.json` has that of `metrics.jsonl` once the trial has ended. What is
//! read back is also held against each other ([`agreement`]), so that records without checksums, of programs before this one, agree.
//! `metrics.jsonl` may be packed by gzip, as `metrics.jsonl.gz`.

pub mod agreement;
pub mod checksum;
pub mod experiment;
pub mod files;
pub mod hyperparameters;
pub mod metric;
pub mod metrics_file;
mod number;
pub mod out_dir;
pub mod outcome;
pub mod progress;
pub mod read;
pub mod run;
pub mod so_far;
pub mod summary;
pub mod tensorboard;
pub mod trial;
pub mod workload;

pub use experiment::{Continuation, ExperimentRecord, Versions};
pub use files::{read_json, write_bytes, write_json, write_text};
pub use metric::{LayerProbe, Metric};
pub use metrics_file::{MetricsWriter, read_metrics};
pub use out_dir::OutDir;
pub use outcome::Outcome;
pub use run::Run;
pub use trial::{Phase, TrialConfig, TrialRecord};
pub use workload::Workload;
