//! How good a model is, by the test data.

use crate::{
    problem::{
        batches::{Batches, DeviceBatches},
        models::forward::{ForwardContext, Model},
        prefetch::Prefetcher,
    },
    record::trial::TrialConfig,
};
use anyhow::Result;
use candle_core::{D, DType};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The mean loss of a test example, and the share of those whose class is right; none when `stop` was set on the way.
///
/// # Errors
/// When candle fails.
pub fn evaluate(
    model: &dyn Model,
    config: &TrialConfig,
    batches: &Batches,
    on_device: &DeviceBatches,
    stop: &AtomicBool,
) -> Result<Option<(f64, f64)>> {
    let (mut loss, mut right, mut n) = (0.0, 0.0, 0);
    let mut prefetcher = Prefetcher::new("test batch", |index| batches.test(index));
    let pass = ForwardContext::evaluate().with_ops(config.ops).with_dtype(config.precision.dtype());
    for index in 0..batches.tests() {
        if stop.load(Relaxed) {
            return Ok(None);
        }
        let next = (index + 1 < batches.tests()).then_some(index + 1);
        prefetcher.use_and_make_next(index, next, |batch| {
            let (x, labels) = on_device.place(batch)?;
            let (mean, logits) = pass.loss(model, &x, &labels)?;
            loss += f64::from(mean.to_scalar::<f32>()?) * labels.elem_count() as f64;
            let is_right = logits.argmax(D::Minus1)?.eq(&labels)?;
            right += f64::from(is_right.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?);
            n += labels.elem_count();
            Ok(())
        })?;
    }
    Ok(Some((loss / n as f64, right / n as f64)))
}
