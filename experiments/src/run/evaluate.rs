//! How good a model is, by the test data; also at parameters that it was not trained at, as averages are.

use crate::{
    problem::{
        batches::{Batches, DeviceBatches},
        models::{
            forward::{ForwardContext, Mode, Model},
            parameters::Parameters,
        },
        prefetch::Prefetcher,
    },
    record::trial::TrialConfig,
};
use anyhow::Result;
use candle_core::{D, DType, Tensor};
use optim::AnyOptimizer;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Batch norm's statistics are renewed by at least so many training examples, the latest: so many that the error of a mean is small
/// beside what one batch's is in training.
const RENEWED_BY: u64 = 2_048;

/// As [`evaluate`], at the parameters that the optimizer says are to be evaluated, and with the statistics that batch norm has there:
/// the mean of those of the latest training batches until update `step`. Parameters and statistics are as before when it returns.
///
/// # Errors
/// When candle or the optimizer fails.
#[allow(clippy::too_many_arguments, reason = "a model is judged by what it was trained with")]
pub fn evaluate_at(
    optimizer: &mut AnyOptimizer,
    (step, trained): (u64, &mut Batches),
    part: Option<usize>,
    model: &dyn Model,
    parameters: &Parameters,
    config: &TrialConfig,
    batches: &Batches,
    on_device: &DeviceBatches,
    stop: &AtomicBool,
) -> Result<Option<(f64, f64)>> {
    let statistics = parameters.buffers();
    let copies = statistics.iter().map(|(_, var)| var.copy());
    let before: Vec<Tensor> = copies.collect::<candle_core::Result<_>>()?;
    optimizer.eval()?;
    let mut measure = || {
        if !statistics.is_empty() {
            let count = RENEWED_BY.div_ceil(config.batch_size as u64).min(step);
            for batch in 0..count {
                let (x, labels) = on_device.place(trained.train(step - count + batch))?;
                let pass = ForwardContext { mode: Mode::Renew { batch }, ..ForwardContext::evaluate() };
                pass.with_ops(config.ops).with_dtype(config.precision.dtype()).loss(model, &x, &labels)?;
            }
        }
        evaluate(model, part, config, batches, on_device, stop)
    };
    let measured = measure();
    optimizer.train()?;
    for ((_, var), before) in statistics.iter().zip(before) {
        var.set(&before)?;
    }
    measured
}

/// The mean loss of `part` of the test examples, or of all, and the share of those whose class is right; none when `stop` was set on the way.
///
/// # Errors
/// When candle fails.
pub fn evaluate(
    model: &dyn Model,
    part: Option<usize>,
    config: &TrialConfig,
    batches: &Batches,
    on_device: &DeviceBatches,
    stop: &AtomicBool,
) -> Result<Option<(f64, f64)>> {
    let (mut loss, mut right, mut n) = (0.0, 0.0, 0);
    let mut prefetcher = Prefetcher::new("test batch", |index| batches.test(index, part));
    let pass = ForwardContext::evaluate().with_ops(config.ops).with_dtype(config.precision.dtype());
    let count = batches.tests(part);
    for index in 0..count {
        if stop.load(Relaxed) {
            return Ok(None);
        }
        let next = (index + 1 < count).then_some(index + 1);
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
