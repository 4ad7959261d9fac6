//! How a trial ended.

use serde::{Deserialize, Serialize};

/// How a trial ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The mean loss of a test example at the end; none when the run diverged.
    pub final_loss: Option<f64>,
    /// The least of all evaluations.
    pub best_loss: Option<f64>,
    /// The share of test examples whose class is right at the end; none when the run diverged.
    pub final_accuracy: Option<f64>,
    /// The greatest of all evaluations.
    pub best_accuracy: Option<f64>,
    /// The mean loss of a test example at the end with averaged weights; none where none were kept, or the run diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_loss: Option<f64>,
    /// The same of the accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_accuracy: Option<f64>,
    /// Updates made.
    pub steps: u64,
    /// Training time, without evaluation and saving.
    pub seconds: f64,
    /// Whether a search stopped it on the way, as worse than others: it has no end then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stopped: bool,
    /// Whether a loss was not finite or above the bound, which ends a run.
    pub diverged: bool,
    /// Where and how it diverged.
    pub cause: Option<String>,
}

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

impl Outcome {
    /// Counts an evaluation in.
    pub fn measure(&mut self, loss: f64, accuracy: f64) {
        self.final_loss = Some(loss);
        self.final_accuracy = Some(accuracy);
        self.best_loss = Some(self.best_loss.map_or(loss, |best| best.min(loss)));
        self.best_accuracy = Some(self.best_accuracy.map_or(accuracy, |best| best.max(accuracy)));
    }

    /// Takes an evaluation with averaged weights.
    pub fn measure_ema(&mut self, loss: f64, accuracy: f64) {
        (self.ema_loss, self.ema_accuracy) = (Some(loss).filter(|loss| loss.is_finite()), Some(accuracy));
    }

    /// As it is where the run ends as diverged, for this `cause`.
    pub fn diverge(self, cause: String) -> Self {
        Self { diverged: true, cause: Some(cause), ..self.without_end() }
    }

    /// As it is where a search stops the run.
    pub fn stop(self) -> Self {
        Self { stopped: true, ..self.without_end() }
    }

    /// Without what is measured at the end.
    pub fn without_end(self) -> Self {
        Self { final_loss: None, final_accuracy: None, ema_loss: None, ema_accuracy: None, ..self }
    }
}
