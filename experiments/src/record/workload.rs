//! A workload: the data set and the model that groups are compared on.

use serde::{Deserialize, Serialize};

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
    /// Test examples, images or windows of text, of an evaluation before the last; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_on: Option<usize>,
    /// The loss of the best prediction that ignores the input: the entropy of the classes' shares in the test data.
    pub constant_loss: f64,
    /// The least expected loss that any model can reach, where that is known.
    pub floor: Option<f64>,
    /// The files of the data set that are not as they were published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_differs: Vec<String>,
}
