//! Where a trial stands, in one file: parameters, buffers, the optimizer's state, and how far its records go.
//!
//! Nothing else has a state: batches, augmentation and dropout are functions of the seed and the step, a schedule of the step.

use crate::{models::Parameters, train::Outcome};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use optim::{AnyOptimizer, StateDict};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

const PROGRESS: &str = "progress";
/// What the keys of each kind of tensor begin with.
const PARAMETER: &str = "parameter/";
const BUFFER: &str = "buffer/";
const OPTIMIZER: &str = "optimizer/";
const UPDATE: &str = "update/";

/// How far a trial has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates made.
    pub step: u64,
    /// Whether the evaluation that is due after them, if one is, has been made.
    pub evaluated: bool,
    /// Bytes of `metrics.jsonl` that were written until then.
    pub metrics_len: u64,
    /// What was measured until then.
    pub outcome: Outcome,
}

/// Everything that a trial continues from.
#[derive(Debug)]
pub struct Checkpoint {
    /// How far it has come.
    pub progress: Progress,
    /// The latest update of each parameter, where a probe wants it.
    pub update: Option<Vec<Tensor>>,
}

impl Checkpoint {
    /// Writes `path`, whole or not at all. The update is in the order of `parameters.trainable()`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, parameters: &Parameters, optimizer: &AnyOptimizer) -> Result<()> {
        let mut file = optimizer.state_dict()?;
        file.tensors = file.tensors.into_iter().map(|(key, tensor)| (format!("{OPTIMIZER}{key}"), tensor)).collect();
        let mut add = |kind: &str, name: &str, tensor: &Tensor| -> Result<()> {
            file.tensors.insert(format!("{kind}{name}"), tensor.to_device(&Device::Cpu)?);
            Ok(())
        };
        let trainable = parameters.trainable();
        for (name, var) in &trainable {
            add(PARAMETER, name, var)?;
        }
        for (name, var) in parameters.buffers() {
            add(BUFFER, &name, &var)?;
        }
        for ((name, _), tensor) in trainable.iter().zip(self.update.iter().flatten()) {
            add(UPDATE, name, tensor)?;
        }
        file.metadata.insert(PROGRESS.to_owned(), serde_json::to_string(&self.progress)?);
        Ok(file.save(path)?)
    }

    /// Reads `path` and puts parameters, buffers and the optimizer's state back.
    ///
    /// # Errors
    /// When the file cannot be read, or is of another model or optimizer.
    pub fn load(path: &Path, parameters: &Parameters, optimizer: &mut AnyOptimizer, device: &Device) -> Result<Self> {
        let mut read = || {
            let mut file = StateDict::load(path)?;
            let progress = file.metadata.remove(PROGRESS).context("it has no progress")?;
            let mut optimizer_state = BTreeMap::new();
            let mut others = BTreeMap::new();
            for (key, tensor) in std::mem::take(&mut file.tensors) {
                match key.strip_prefix(OPTIMIZER) {
                    Some(key) => optimizer_state.insert(key.to_owned(), tensor),
                    None => others.insert(key, tensor),
                };
            }
            let mut take = |kind: &str, name: &str| -> Result<Option<Tensor>> {
                Ok(others.remove(&format!("{kind}{name}")).map(|tensor| tensor.to_device(device)).transpose()?)
            };
            let trainable = parameters.trainable();
            for (kind, tensors) in [(PARAMETER, &trainable), (BUFFER, &parameters.buffers())] {
                for (name, var) in tensors {
                    let tensor = take(kind, name)?.with_context(|| format!("it has no {kind}{name}"))?;
                    var.set(&tensor).with_context(|| format!("{kind}{name}"))?;
                }
            }
            let update = trainable.iter().map(|(name, _)| take(UPDATE, name)).collect::<Result<Option<Vec<_>>>>()?;
            optimizer.load_state_dict(&StateDict { tensors: optimizer_state, metadata: file.metadata })?;
            anyhow::Ok(Self { progress: serde_json::from_str(&progress)?, update })
        };
        read().with_context(|| format!("checkpoint `{}`", path.display()))
    }
}
