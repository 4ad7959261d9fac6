//! A workload of the run: its data set and its model, how long it is trained, and whether that fits into the memory.

use super::{memory, split::Tensors};
use crate::{
    config::options::Settings,
    problem::{
        batches::{steps_per_epoch, test_sizes},
        data::{dataset::Dataset, loaded::Data, spec::Length},
        models::{parameters::Parameters, registry, shape::Shape, spec::ModelConfig},
    },
    record::workload::Workload,
};
use anyhow::{Result, bail};
use candle_core::Device;
use optim::recipes;

/// A workload, with what trains on it.
pub struct LoadedWorkload {
    /// As it is written.
    pub record: Workload,
    /// The model.
    pub model: ModelConfig,
    /// The model's inputs and outputs.
    pub shape: Shape,
    /// The data set.
    pub dataset: Dataset,
    /// The model's parameters.
    pub tensors: Tensors,
}

impl LoadedWorkload {
    /// That of `dataset`, whose data have this hash, and `model`, as in `--model`, with the first batch size of `settings`.
    ///
    /// # Errors
    /// When the model is none, does not fit the data, or is too large for the memory, or a batch is.
    pub fn new(dataset: Dataset, model: &str, data: &Data, hash: &str, settings: &Settings) -> Result<Self> {
        let model = registry::parse(model)?;
        let shape = model.shape(data)?;
        if let (Data::Text(text), true) = (data, settings.tunes()) {
            // The parts that tuning makes of the training text are shorter.
            model.shape(&Data::Text(text.split_for_tuning()))?;
        }
        let defaults = dataset.spec().defaults;
        let batch_size = settings.batch_size.first().map_or(defaults.batch_size, |one| one.get());
        let steps_per_epoch = steps_per_epoch(data, &shape, batch_size);
        if steps_per_epoch == 0 || settings.tunes() && steps_per_epoch < 2 {
            bail!("batch size {batch_size}: {dataset} has too few training examples for one batch");
        }
        let recipe = settings.recipe.as_deref().map(|name| recipes::by_name(name, steps_per_epoch)).transpose()?;
        let length = match (settings.steps, settings.epochs, recipe) {
            (Some(steps), ..) => Length::Steps(steps.get()),
            (None, Some(epochs), _) => Length::Epochs(epochs.get()),
            (None, None, Some(recipe)) if !settings.scale_recipe => Length::Steps(recipe.steps),
            (None, None, _) => defaults.length,
        };
        let steps = match length {
            Length::Epochs(epochs) => epochs.saturating_mul(steps_per_epoch),
            Length::Steps(steps) => steps,
        };
        // Before the model takes it.
        check_memory(&model, &shape, settings, batch_size, (1, 0))?;
        let parameters = Parameters::new(0);
        let views = model.build(&shape, parameters.builder(&Device::Cpu))?.views();
        let (evaluate_every, evaluate_on) = evaluations(steps, data, &shape, (batch_size, steps_per_epoch), views);
        let tensors = parameters.trainable().iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
        let record = Workload {
            dataset: dataset.to_string(),
            data_sha256: Some(hash.to_owned()),
            model: model.to_string(),
            classes: data.classes(),
            parameters: parameters.count(),
            batch_size,
            steps,
            steps_per_epoch,
            evaluate_every,
            evaluate_on,
            constant_loss: data.constant_loss(),
            floor: data.floor(),
            data_differs: dataset.fingerprint(data).differs,
        };
        Ok(Self { record, model, shape, dataset, tensors })
    }
}

/// Evaluations of a run, at least, where it makes so many updates.
const EVALUATIONS: u64 = 20;

/// What evaluations before the last may cost, as a share of training.
const COST: f64 = 0.1;

/// A training step takes so many times what it takes to evaluate its examples: backward costs twice as much as forward.
const PASSES: f64 = 3.0;

/// Updates between evaluations, and on how many test examples those before the last are made; none for all of them. Images are
/// evaluated once an epoch at least.
fn evaluations(
    steps: u64,
    data: &Data,
    shape: &Shape,
    (batch_size, steps_per_epoch): (usize, u64),
    views: usize,
) -> (u64, Option<usize>) {
    let (most, context) = match shape {
        Shape::Images(_) => (steps_per_epoch, 1),
        Shape::Text { context, .. } => (steps, *context),
    };
    let every = (steps / EVALUATIONS).min(most).max(1);
    let (examples, least) = test_sizes(data, context);
    let paid = COST * PASSES * (every as f64) * batch_size as f64 / views as f64;
    let part = (paid as usize).max(least);
    (every, (part < examples).then_some(part))
}

/// Checks that `jobs` trials at a time, with so many bytes of an optimizer's state each, can fit into the memory.
pub fn check_memory(
    model: &ModelConfig,
    shape: &Shape,
    settings: &Settings,
    batch_size: usize,
    (jobs, state): (usize, u64),
) -> Result<()> {
    // What a GPU has is not known here; there, a trial that does not fit is an error.
    if settings.device.as_deref().is_some_and(|device| device != "cpu") {
        return Ok(());
    }
    let precision = settings.precision.unwrap_or_default();
    let step = memory::least(&model.least(shape), batch_size, precision.dtype());
    let needed = step.saturating_add(state).saturating_mul(jobs as u64);
    let Some(available) = memory::limit().filter(|limit| needed > *limit) else { return Ok(()) };
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let at_a_time = if jobs > 1 { format!(" with {jobs} trials at a time (--jobs)") } else { String::new() };
    bail!(
        "model {model}: to train it on {batch_size} examples an update takes at least {:.1} GB{at_a_time}, and there are {:.1} GB",
        gigabytes(needed),
        gigabytes(available)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{data::digits, models::shape::ImageShape};

    #[test]
    fn a_run_is_evaluated_twenty_times_for_a_tenth_of_its_time() {
        let data = Data::Images(digits::load());
        let shape = ImageShape { channels: 1, height: 8, width: 8, classes: 10 };
        for (steps, batch_size, views, every, part) in [
            // 44 updates are an epoch: 44 x 32 x 0.3 = 422 images are paid for, and there are 359.
            (1_760, 32, 1, 44, None),
            (880, 32, 1, 44, None),
            (880, 32, 2, 44, Some(250)),
            (700, 30, 1, 35, Some(315)),
            // At least one batch of an evaluation.
            (88, 32, 1, 4, Some(250)),
            (10, 32, 1, 1, Some(250)),
        ] {
            let found =
                evaluations(steps, &data, &Shape::Images(shape), (batch_size, 1_438 / batch_size as u64), views);
            assert_eq!(found, (every, part), "{steps} {batch_size} {views}");
            assert!(steps < EVALUATIONS || steps / found.0 >= EVALUATIONS);
        }
    }
}
