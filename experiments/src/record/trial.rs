//! `trial.json`: what a trial is, and how it ended.

use super::outcome::Outcome;
use crate::config::{augmentation::Augmentation, operations::Operations, precision::Precision};
use optim::text::SpecText;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// To choose hyperparameters: it trains on a part of the training data and is judged by the rest.
    Tune,
    /// To compare: it is judged by the test data.
    Final,
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
    /// The decay of the average of the weights that is evaluated beside them; none for no average. What is none is not written, so that
    /// ids stay what they were before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Updates between two moves of Lookahead; none without it. Written as [`Self::ema`] is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookahead: Option<u64>,
    /// Whether weight decay leaves out tensors of fewer than two dimensions.
    pub decay_matrices_only: bool,
    /// Examples per update.
    pub batch_size: usize,
    /// Updates.
    pub steps: u64,
    /// Updates between two evaluations.
    pub evaluate_every: u64,
    /// Test examples of an evaluation before the last; none for all. Written as [`Self::ema`] is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_on: Option<usize>,
    /// How training images are moved and mirrored. Not at all is `false`, and at random `true`, so that ids stay what they were before
    /// there were more.
    #[serde(with = "augment")]
    pub augment: Augmentation,
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
    /// How many equal trials of other groups of the run come before it; none for none. Written as [`Self::ema`] is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
}

mod augment {
    use super::Augmentation;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Record {
        Flag(bool),
        Name(Augmentation),
    }

    pub fn serialize<S: Serializer>(augmentation: &Augmentation, serializer: S) -> Result<S::Ok, S::Error> {
        let record = match augmentation {
            Augmentation::None => Record::Flag(false),
            Augmentation::Random => Record::Flag(true),
            Augmentation::Alternating => Record::Name(*augmentation),
        };
        record.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Augmentation, D::Error> {
        Ok(match Record::deserialize(deserializer)? {
            Record::Flag(false) => Augmentation::None,
            Record::Flag(true) => Augmentation::Random,
            Record::Name(augmentation) => augmentation,
        })
    }
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
        let optimizer = SpecText::of(&self.optimizer).name;
        let phase = if self.phase == Phase::Tune { "tune-" } else { "" };
        format!("{phase}{optimizer}-seed{}-{hash}", self.seed)
    }
}
