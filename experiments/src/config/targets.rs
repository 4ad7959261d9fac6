//! Targets: what the time to is measured.

use anyhow::{Result, ensure};

/// What to measure the time to; what is none here is taken from the options of each run, `target_accuracy` and `target_loss`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Targets {
    /// A test accuracy, as a share.
    pub accuracy: Option<f64>,
    /// A test loss.
    pub loss: Option<f64>,
}

impl Targets {
    /// Checks that they can be reached by any run at all.
    ///
    /// # Errors
    /// When the accuracy is not above 0 and at most 1, or the loss is not a positive finite number.
    pub fn check(&self) -> Result<()> {
        if let Some(accuracy) = self.accuracy {
            ensure!(
                accuracy > 0.0 && accuracy <= 1.0,
                "--target-accuracy {accuracy}: it must be a share above 0 and at most 1"
            );
        }
        if let Some(loss) = self.loss {
            ensure!(loss > 0.0 && loss.is_finite(), "--target-loss {loss}: it must be a number above 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_out_of_reach_are_refused() {
        assert!(Targets { accuracy: Some(0.95), loss: Some(0.1) }.check().is_ok());
        for (targets, named) in [
            (Targets { accuracy: Some(95.0), loss: None }, "--target-accuracy 95"),
            (Targets { accuracy: Some(f64::NAN), loss: None }, "--target-accuracy NaN"),
            (Targets { accuracy: None, loss: Some(0.0) }, "--target-loss 0"),
        ] {
            let message = targets.check().unwrap_err().to_string();
            assert!(message.starts_with(named), "{message}");
        }
    }
}
