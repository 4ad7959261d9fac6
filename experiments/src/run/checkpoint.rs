//! Where a trial stands, in one file: parameters, buffers, the optimizer's state, and how far its records go.
//!
//! Nothing else has a state: batches, augmentation and dropout are functions of the seed and the step, a schedule of the step.
//!
//! The file names its trial, and holds a checksum over all that it has: what goes on from a damaged one would end with other results.

use crate::{problem::models::parameters::Parameters, record::progress::Progress};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{CpuStorage, Device, Storage, Tensor};
use optim::{AnyOptimizer, StateDict};
use std::{collections::BTreeMap, path::Path};

const PROGRESS: &str = "progress";
const TRIAL: &str = "trial";
/// The metadata's key of what this module makes of a file; [`FORMAT_VERSION`] is what is read and written.
const FORMAT: &str = "checkpoint_format";
const FORMAT_VERSION: &str = "2";
const CHECKSUM: &str = "crc32c";
/// What the keys of each kind of tensor begin with.
const PARAMETER: &str = "parameter/";
const BUFFER: &str = "buffer/";
const OPTIMIZER: &str = "optimizer/";
const UPDATE: &str = "update/";
/// Numbers whose bytes are added to a checksum at a time.
const NUMBERS_PER_PART: usize = 4096;

/// Everything that a trial continues from.
#[derive(Debug)]
pub struct Checkpoint {
    /// How far it has come.
    pub progress: Progress,
    /// The latest update of each parameter, where a probe wants it.
    pub update: Option<Vec<Tensor>>,
}

impl Checkpoint {
    /// Writes the checkpoint of `trial` to `path`, whole or not at all. The update is in the order of `parameters.trainable()`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, trial: &str, parameters: &Parameters, optimizer: &AnyOptimizer) -> Result<()> {
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
        for (key, value) in [
            (PROGRESS, serde_json::to_string(&self.progress)?),
            (TRIAL, trial.to_owned()),
            (FORMAT, FORMAT_VERSION.to_owned()),
        ] {
            file.metadata.insert(key.to_owned(), value);
        }
        let checksum = checksum(&file)?;
        file.metadata.insert(CHECKSUM.to_owned(), checksum);
        Ok(file.save(path)?)
    }

    /// Reads the checkpoint of `trial` from `path` and puts parameters, buffers and the optimizer's state back.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another trial, model, optimizer or form of checkpoints.
    pub fn load(
        path: &Path,
        trial: &str,
        parameters: &Parameters,
        optimizer: &mut AnyOptimizer,
        device: &Device,
    ) -> Result<Self> {
        let mut read = || {
            let mut file = StateDict::load(path)?;
            let own = file.metadata.remove(CHECKSUM);
            let text = |key: &str| file.metadata.get(key).map_or("none", String::as_str);
            if text(FORMAT) != FORMAT_VERSION {
                bail!(
                    "it is of another version of this program (its form is {}, and {FORMAT_VERSION} is read)",
                    text(FORMAT)
                );
            }
            ensure!(own == Some(checksum(&file)?), "its checksum is of something else: it was damaged or changed");
            ensure!(text(TRIAL) == trial, "it is of the trial `{}`", text(TRIAL));
            let progress = serde_json::from_str(text(PROGRESS)).context("its progress cannot be read")?;

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
                    if (tensor.dims(), tensor.dtype()) != (var.dims(), var.dtype()) {
                        let [found, own] =
                            [&tensor, var.as_tensor()].map(|t| format!("{:?} of {:?}", t.dims(), t.dtype()));
                        bail!("it is of another model: {kind}{name} is {found}, and the model has {own}");
                    }
                    var.set(&tensor).with_context(|| format!("{kind}{name}"))?;
                }
            }
            let update = trainable.iter().map(|(name, _)| take(UPDATE, name)).collect::<Result<Option<Vec<_>>>>()?;
            if let Some(key) = others.keys().next() {
                bail!("it is of another model: it has {key}");
            }
            for key in [PROGRESS, TRIAL, FORMAT] {
                file.metadata.remove(key);
            }
            optimizer.load_state_dict(&StateDict { tensors: optimizer_state, metadata: file.metadata })?;
            anyhow::Ok(Self { progress, update })
        };
        read().with_context(|| format!("checkpoint `{}` (without it the trial begins anew)", path.display()))
    }
}

/// A CRC-32C over all keys, sizes, types and values.
fn checksum(file: &StateDict) -> Result<String> {
    let mut crc = crc32c::crc32c(serde_json::to_string(&file.metadata)?.as_bytes());
    for (key, tensor) in &file.tensors {
        crc = crc32c::crc32c_append(crc, format!("{key:?} {:?} {:?}", tensor.dims(), tensor.dtype()).as_bytes());
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("{key} is not on the CPU") };
        let (start, end) = layout.contiguous_offsets().with_context(|| format!("{key} is not contiguous"))?;
        crc = match storage {
            CpuStorage::F32(values) => append(crc, &values[start..end], f32::to_le_bytes),
            CpuStorage::F64(values) => append(crc, &values[start..end], f64::to_le_bytes),
            CpuStorage::I64(values) => append(crc, &values[start..end], i64::to_le_bytes),
            _ => bail!("{key} is of {:?}, which no checkpoint has", tensor.dtype()),
        };
    }
    Ok(format!("{crc:08x}"))
}

fn append<T: Copy, const BYTES: usize>(crc: u32, values: &[T], bytes: fn(T) -> [u8; BYTES]) -> u32 {
    let mut part = Vec::with_capacity(NUMBERS_PER_PART * BYTES);
    values.chunks(NUMBERS_PER_PART).fold(crc, |crc, values| {
        part.clear();
        values.iter().for_each(|value| part.extend_from_slice(&bytes(*value)));
        crc32c::crc32c_append(crc, &part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problem::models::{
            registry,
            shape::{ImageShape, Shape},
        },
        record::outcome::Outcome,
        run::optimizer,
    };
    use candle_core::DType;
    use candle_nn::Optimizer;
    use optim::Group;
    use std::fs;

    const TRIAL: &str = "adamw-seed0-0123456789";

    fn parts(model: &str, classes: usize, rule: &str) -> Result<(Parameters, AnyOptimizer)> {
        let shape = ImageShape { channels: 1, height: 8, width: 8, classes };
        let parameters = Parameters::new(0);
        registry::parse(model)?.build(&Shape::Images(shape), parameters.builder(&Device::Cpu))?;
        let group = Group::new(parameters.trainable(), optimizer::parse(rule)?);
        Ok((parameters, AnyOptimizer::from_groups(vec![group])?))
    }

    /// After two updates, with the latest one where a probe has it.
    fn saved(path: &Path, model: &str, classes: usize, rule: &str) -> Result<String> {
        let (parameters, mut optimizer) = parts(model, classes, rule)?;
        for _ in 0..2 {
            let squares = parameters.trainable().into_iter().map(|(_, var)| var.sqr()?.sum_all());
            let squares = squares.collect::<candle_core::Result<Vec<_>>>()?;
            optimizer.backward_step(&Tensor::stack(&squares, 0)?.sum_all()?)?;
        }
        let outcome = Outcome { best_loss: Some(0.1), steps: 2, ..Outcome::default() };
        let metrics_sha256 = Some("12ab".to_owned());
        let progress = Progress { step: 2, evaluated: true, metrics_len: 321, metrics_sha256, outcome };
        let update =
            parameters.trainable().iter().map(|(_, var)| var.affine(0.5, 0.0)).collect::<candle_core::Result<_>>()?;
        let checkpoint = Checkpoint { progress, update: Some(update) };
        checkpoint.save(path, TRIAL, &parameters, &optimizer)?;
        all_of(&checkpoint, &parameters, &optimizer)
    }

    fn all_of(checkpoint: &Checkpoint, parameters: &Parameters, optimizer: &AnyOptimizer) -> Result<String> {
        let mut all = optimizer.state_dict()?;
        let tensors = parameters.trainable().into_iter().chain(parameters.buffers());
        all.tensors.extend(tensors.map(|(name, var)| (name, var.as_tensor().clone())));
        let update = checkpoint.update.iter().flatten().enumerate();
        all.tensors.extend(update.map(|(i, tensor)| (format!("{UPDATE}{i}"), tensor.clone())));
        all.metadata.insert(PROGRESS.to_owned(), format!("{:?}", checkpoint.progress));
        checksum(&all)
    }

    fn loaded(path: &Path, trial: &str, model: &str, classes: usize, rule: &str) -> Result<String> {
        let (parameters, mut optimizer) = parts(model, classes, rule)?;
        let checkpoint = Checkpoint::load(path, trial, &parameters, &mut optimizer, &Device::Cpu)?;
        all_of(&checkpoint, &parameters, &optimizer)
    }

    /// A file that is read although it was damaged, as where white space changed, must hold the same.
    #[test]
    fn a_checkpoint_that_was_damaged_anywhere_is_refused() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        // With buffers.
        let expected = saved(&path, "cnn4:norm=batch", 10, "adamw")?;
        let load = || loaded(&path, TRIAL, "cnn4:norm=batch", 10, "adamw");
        assert_eq!(load()?, expected);
        let whole = fs::read(&path)?;
        let header = 8 + u64::from_le_bytes(whole[..8].try_into()?) as usize;
        let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
        let in_tensors = (0..50).map(|i| header + (whole.len() - header) * i / 50);
        for at in (0..header).step_by(header / 100).chain(in_tensors).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged.push((format!("bit {} of byte {at} flipped", at % 8), bytes));
        }
        for length in (0..10).map(|i| whole.len() * i / 10).chain([header - 1, header, whole.len() - 1]) {
            damaged.push((format!("cut to {length} bytes"), whole[..length].to_vec()));
        }
        damaged.push(("a byte more".to_owned(), [&whole[..], &[0]].concat()));
        damaged.push(("other bytes".to_owned(), vec![0xff; 100]));
        let mut read = 0;
        for (how, bytes) in damaged {
            fs::write(&path, bytes)?;
            match load() {
                Ok(found) => {
                    assert_eq!(found, expected, "{how}");
                    read += 1;
                }
                Err(error) => assert!(format!("{error:#}").contains("checkpoint.safetensors"), "{how}: {error:#}"),
            }
        }
        assert!(read < 3, "{read} of them were read");
        Ok(())
    }

    #[test]
    fn a_checkpoint_of_another_trial_model_optimizer_or_version_is_refused_in_one_line() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        saved(&path, "mlp", 10, "adamw")?;
        let refused = |trial: &str, model: &str, classes: usize, rule: &str| {
            format!("{:#}", loaded(&path, trial, model, classes, rule).unwrap_err())
        };
        for (message, part) in [
            (refused("adamw-seed1-abcdef0123", "mlp", 10, "adamw"), "it is of the trial `adamw-seed0-0123456789`"),
            (refused(TRIAL, "mlp", 9, "adamw"), "it is of another model: parameter/classifier."),
            (refused(TRIAL, "cnn", 10, "adamw"), "it has no parameter/"),
            (refused(TRIAL, "mlp", 10, "lion"), "it is of `adamw`, but the optimizer is `lion`"),
        ] {
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        }
        // As programs before this one wrote it, and as one after it might.
        for format in [None, Some("3")] {
            let mut file = StateDict::load(&path)?;
            file.metadata.remove(FORMAT);
            file.metadata.extend(format.map(|format| (FORMAT.to_owned(), format.to_owned())));
            file.save(&path)?;
            let message = refused(TRIAL, "mlp", 10, "adamw");
            let part = format!("its form is {}, and 2 is read", format.unwrap_or("none"));
            assert!(message.contains(&part) && message.contains("the trial begins anew"), "{message}");
        }
        // More than the model has.
        saved(&path, "mlp", 10, "adamw")?;
        let mut file = StateDict::load(&path)?;
        file.tensors.insert(format!("{BUFFER}more"), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
        file.metadata.remove(CHECKSUM);
        let sum = checksum(&file)?;
        file.metadata.insert(CHECKSUM.to_owned(), sum);
        file.save(&path)?;
        let message = refused(TRIAL, "mlp", 10, "adamw");
        assert!(message.contains("it is of another model: it has buffer/more"), "{message}");
        Ok(())
    }
}
