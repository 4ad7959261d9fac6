//! What is measured of a trial, a line each.

use super::number;
use serde::{Deserialize, Serialize};

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
    /// A pass over the test images with averaged weights, beside that with the weights as they are trained.
    Ema {
        /// The updates made before it.
        step: u64,
        /// The mean loss of a test image.
        #[serde(with = "number")]
        loss: f64,
        /// The share of test images whose class is right.
        accuracy: f64,
        /// As [`Metric::Eval`]'s.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
