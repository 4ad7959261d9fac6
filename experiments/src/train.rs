//! One training run: batches in seeded order, updates, measurements.

use crate::{
    console::TrialBar,
    data::{Augment, ImageData, Split},
    models::{ImageShape, Model, ModelConfig, Parameters, Pass, Shape},
    optimizer,
    random::{self, Purpose, stream},
    record::{Metric, MetricsWriter},
};
use anyhow::Result;
use candle_core::{D, Device, Tensor};
use candle_nn::loss::cross_entropy;
use optim::{AnyRule, Schedule};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A train line is written for the first update, the last, and every update that is a multiple of this.
const TRAIN_LINE_EVERY: u64 = 10;

/// Images in a batch of the evaluation.
const EVALUATION_BATCH: usize = 250;

/// What a training run needs.
#[derive(Clone, Debug)]
pub struct Training<'a> {
    /// The images.
    pub data: &'a ImageData,
    /// The model.
    pub model: &'a ModelConfig,
    /// The optimizer's rule.
    pub rule: AnyRule,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// Images per update.
    pub batch_size: usize,
    /// Updates.
    pub steps: u64,
    /// Updates between two evaluations; the last update is followed by one in any case.
    pub evaluate_every: u64,
    /// Whether to move and mirror the training images at random.
    pub augment: bool,
    /// What initialisation, order and augmentation are drawn from.
    pub seed: u64,
}

/// How a training run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The mean loss of a test image at the end; none when the run diverged.
    pub final_loss: Option<f64>,
    /// The least of all evaluations.
    pub best_loss: Option<f64>,
    /// The share of test images whose class is right at the end; none when the run diverged.
    pub final_accuracy: Option<f64>,
    /// The greatest of all evaluations.
    pub best_accuracy: Option<f64>,
    /// Updates made.
    pub steps: u64,
    /// Training time, without evaluation and saving.
    pub seconds: f64,
    /// Whether a loss was not finite, which ends a run.
    pub diverged: bool,
    /// Where and how it diverged.
    pub cause: Option<String>,
}

impl Training<'_> {
    /// Full batches in an epoch. The rest of the images is left out, so that every update averages over as many images;
    /// each epoch leaves out others.
    pub fn steps_per_epoch(&self) -> u64 {
        steps_per_epoch(self.data, self.batch_size)
    }

    /// Trains on `device` and writes what it measures to `metrics`. On the CPU the measurements are a function of `self`
    /// alone, times excepted.
    ///
    /// # Errors
    /// When candle fails or a line cannot be written. A loss that is not finite is no error but an [`Outcome`].
    pub fn run(&self, device: &Device, metrics: &mut MetricsWriter, bar: &TrialBar) -> Result<Outcome> {
        let parameters = Parameters::new(self.seed);
        let model = self.model.build(&Shape::Images(image_shape(self.data)), parameters.builder(device))?;
        let mut optimizer = optimizer::build(parameters.trainable(), &self.rule, &self.schedule)?;
        tracing::debug!(model = %self.model, parameters = parameters.count(), seed = self.seed, "built the model");

        let mut outcome = Outcome::default();
        let mut clock = Clock::default();
        let mut epoch = Epoch::draw(self, 0);
        for step in 1..=self.steps {
            clock.start();
            let (index, batch) = ((step - 1) / self.steps_per_epoch(), (step - 1) % self.steps_per_epoch());
            if epoch.index != index {
                epoch = Epoch::draw(self, index);
            }
            let (x, labels) = epoch.batch(self, batch as usize, device)?;
            let is_recorded = step == 1 || step == self.steps || step % TRAIN_LINE_EVERY == 0;
            optimizer.measure_grad_norm(is_recorded);
            let lr = self.schedule.at(step - 1);
            let loss = optimizer
                .step_with(|evaluation| cross_entropy(&model.forward(&x, &Pass::train(evaluation))?, &labels))?;
            let loss = f64::from(loss.to_scalar::<f32>()?);
            let is_evaluated = step == self.steps || step % self.evaluate_every == 0;
            if is_evaluated {
                device.synchronize()?;
            }
            let seconds = clock.stop();
            (outcome.steps, outcome.seconds) = (step, seconds);

            let diverged = !loss.is_finite();
            if is_recorded || diverged {
                let grad_norm = optimizer.grad_norm().filter(|_| is_recorded);
                metrics.write(&Metric::Train { step, epoch: index, loss, lr, grad_norm, seconds })?;
            }
            if diverged {
                return Ok(outcome.diverge(format!("the training loss is {loss} at step {step}")));
            }
            bar.step(step, loss);
            if is_evaluated {
                let (loss, accuracy) = evaluate(&*model, self.data, &self.data.test, device)?;
                metrics.write(&Metric::Eval { step, loss, accuracy, seconds })?;
                if !loss.is_finite() {
                    return Ok(outcome.diverge(format!("the test loss is {loss} at step {step}")));
                }
                outcome.measure(loss, accuracy);
                bar.evaluated(loss, accuracy);
            }
        }
        Ok(outcome)
    }
}

impl Outcome {
    fn measure(&mut self, loss: f64, accuracy: f64) {
        self.final_loss = Some(loss);
        self.final_accuracy = Some(accuracy);
        self.best_loss = Some(self.best_loss.map_or(loss, |best| best.min(loss)));
        self.best_accuracy = Some(self.best_accuracy.map_or(accuracy, |best| best.max(accuracy)));
    }

    fn diverge(self, cause: String) -> Self {
        Self { final_loss: None, final_accuracy: None, diverged: true, cause: Some(cause), ..self }
    }
}

/// Full batches in an epoch of `data`'s training images.
pub fn steps_per_epoch(data: &ImageData, batch_size: usize) -> u64 {
    (data.train.len() / batch_size) as u64
}

/// The size of `data`'s images.
pub fn image_shape(data: &ImageData) -> ImageShape {
    ImageShape { channels: data.channels, height: data.height, width: data.width, classes: data.classes }
}

/// The mean loss of an image of `split`, and the share of images whose class is right.
///
/// # Errors
/// When candle fails.
pub fn evaluate(model: &dyn Model, data: &ImageData, split: &Split, device: &Device) -> Result<(f64, f64)> {
    let indices: Vec<usize> = (0..split.len()).collect();
    let (mut loss, mut right) = (0.0, 0.0);
    for indices in indices.chunks(EVALUATION_BATCH) {
        let (x, labels) = tensors(data, data.batch(split, indices, None), device)?;
        let logits = model.forward(&x, &Pass::evaluate())?;
        loss += f64::from(cross_entropy(&logits, &labels)?.to_scalar::<f32>()?) * indices.len() as f64;
        let is_right = logits.argmax(D::Minus1)?.eq(&labels)?;
        right += f64::from(is_right.to_dtype(candle_core::DType::F32)?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok((loss / split.len() as f64, right / split.len() as f64))
}

fn tensors(data: &ImageData, (pixels, labels): (Vec<f32>, Vec<u32>), device: &Device) -> Result<(Tensor, Tensor)> {
    let n = labels.len();
    let x = Tensor::from_vec(pixels, (n, data.channels, data.height, data.width), device)?;
    Ok((x, Tensor::from_vec(labels, n, device)?))
}

/// What is drawn for an epoch: a function of the seed and the epoch's number.
struct Epoch {
    index: u64,
    order: Vec<usize>,
    augment: Option<Vec<Augment>>,
}

impl Epoch {
    fn draw(training: &Training, index: u64) -> Self {
        let order = random::order(training.seed, index, training.data.train.len());
        let augment = training.augment.then(|| {
            let mut rng = stream(training.seed, Purpose::Augmentation, index);
            let mut draw =
                |_| Augment { dy: rng.random_range(-4..=4), dx: rng.random_range(-4..=4), flip: rng.random() };
            (0..order.len()).map(&mut draw).collect()
        });
        Self { index, order, augment }
    }

    fn batch(&self, training: &Training, batch: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let range = batch * training.batch_size..(batch + 1) * training.batch_size;
        let augment = self.augment.as_ref().map(|augment| &augment[range.clone()]);
        let data = training.data;
        tensors(data, data.batch(&data.train, &self.order[range.clone()], augment), device)
    }
}

/// Adds up the time between `start` and `stop`.
#[derive(Default)]
struct Clock {
    total: Duration,
    started: Option<Instant>,
}

impl Clock {
    fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    /// The seconds so far.
    fn stop(&mut self) -> f64 {
        self.total += self.started.take().map_or(Duration::ZERO, |started| started.elapsed());
        self.total.as_secs_f64()
    }
}
