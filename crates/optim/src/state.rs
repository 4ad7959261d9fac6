//! The state of an optimizer as named tensors, and as a safetensors file.

use crate::backend::State;
use crate::backend::kernel::Kernel;
use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::optimizer::{Call, FusedOptimizer, Parameter};
use crate::rule::contract::Rule;
use candle_core::{DType, Device, Shape, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

/// The version of the layout that [`StateDict`] describes.
const VERSION: &str = "1";
const MASTER: &str = "master";
const STEP: &str = "step";

/// The state of an optimizer, on the host.
///
/// Tensors: `<parameter>.<slot>` (f32, f64 for f64 parameters; the parameter's shape), `<parameter>.master` where there
/// is a master copy, and `<parameter>.step` (i64, no dimensions), how often that parameter was updated. A parameter that
/// was never updated has `step` 0 and no slots. Metadata: `version`, `step` (the optimizer's steps) and `rules`.
///
/// Hyperparameters, schedules, clipping and frozen parameters are not part of it: they belong to the program that makes
/// the optimizer. The values of bf16 and f16 parameters without a master copy are in the model's own checkpoint only.
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    /// By key.
    pub tensors: BTreeMap<String, Tensor>,
    /// By key.
    pub metadata: BTreeMap<String, String>,
}

fn mismatch(problem: String) -> Error {
    Error::StateMismatch(problem)
}

impl StateDict {
    /// Writes a safetensors file, whole or not at all, as [`write_whole`] does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.tensors.iter().map(|(key, tensor)| Ok((key, tensor, to_bytes(tensor)?)));
        let bytes = bytes.collect::<Result<Vec<_>>>()?;
        let views = bytes.iter().map(|(key, tensor, bytes)| {
            let dtype = match tensor.dtype() {
                DType::F32 => safetensors::Dtype::F32,
                DType::F64 => safetensors::Dtype::F64,
                _ => safetensors::Dtype::I64,
            };
            let view = TensorView::new(dtype, tensor.dims().to_vec(), bytes);
            view.map(|view| (key.as_str(), view)).map_err(|e| mismatch(format!("`{key}`: {e}")))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        let data = safetensors::serialize(views, Some(metadata)).map_err(|e| mismatch(e.to_string()))?;

        write_whole(path, |file| file.write_all(&data))
            .map_err(|source| Error::File { path: path.to_path_buf(), source })
    }

    /// Reads a file written by [`save`](Self::save).
    ///
    /// # Errors
    /// The file cannot be read or is no safetensors file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let data = std::fs::read(path).map_err(|source| Error::File { path: path.to_path_buf(), source })?;
        let bad = |e: &dyn std::fmt::Display| mismatch(format!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&data).map_err(|e| bad(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = candle_core::safetensors::load_buffer(&data, &Device::Cpu).map_err(|e| bad(&e))?;
        Ok(Self { tensors: tensors.into_iter().collect(), metadata })
    }

    fn number(&self, key: &str) -> Result<u64> {
        let text = self.metadata.get(key).ok_or_else(|| mismatch(format!("the metadata have no `{key}`")))?;
        text.parse().map_err(|_| mismatch(format!("`{key}` is `{text}`, which is not a count")))
    }

    /// A tensor, checked against what the optimizer has.
    fn tensor(&self, key: &str, shape: &Shape, dtype: DType) -> Result<&Tensor> {
        let tensor = self.tensors.get(key).ok_or_else(|| mismatch(format!("`{key}` is missing")))?;
        if tensor.shape() != shape {
            let found = tensor.shape();
            return Err(mismatch(format!("`{key}` has the shape {found:?}, but the optimizer has {shape:?}")));
        }
        if tensor.dtype() != dtype {
            let found = tensor.dtype();
            return Err(mismatch(format!("`{key}` has the type {found:?}, but the optimizer has {dtype:?}")));
        }
        Ok(tensor)
    }

    /// The kernel whose slots a parameter's keys are: of those that the rule may have used, as its hyperparameters were when the
    /// state was saved; the present one where none fits.
    fn kernel(&self, name: &str, rule: &impl Rule) -> &'static Kernel {
        let has = |slot: &str| self.tensors.contains_key(&format!("{name}.{slot}"));
        let kernels = rule.kernels();
        let slots: HashSet<&str> = kernels.iter().flat_map(|kernel| kernel.slots).copied().filter(|s| has(s)).collect();
        let fits = |kernel: &&&'static Kernel| kernel.slots.iter().copied().collect::<HashSet<_>>() == slots;
        kernels.iter().find(fits).copied().unwrap_or_else(|| rule.kernel())
    }

    fn state(&self, parameter: &Parameter, kernel: &Kernel) -> Result<State> {
        let Parameter { name, var, .. } = parameter;
        let dtype = if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let tensor = |slot: &str| self.tensor(&format!("{name}.{slot}"), var.shape(), dtype).cloned();
        let slots = kernel.slots.iter().map(|slot| tensor(slot)).collect::<Result<_>>()?;
        // A parameter in full precision has no master copy: the key is then one too many.
        let has_master = parameter.is_half() && self.tensors.contains_key(&format!("{name}.{MASTER}"));
        Ok(State::with(var, slots, has_master.then(|| tensor(MASTER)).transpose()?)?)
    }
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => flat.to_vec1::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
}

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// The names of the rules in use, sorted: what a saved state is checked against.
    fn rules(&self) -> String {
        let mut heads: Vec<String> = self.groups.iter().map(|g| g.rule.qualified_name()).collect();
        heads.sort();
        heads.dedup();
        heads.join(" ")
    }

    fn check_between_steps(&self) -> Result<()> {
        if !self.has_names {
            return Err(Error::Unnamed);
        }
        self.check(Call::SaveOrLoad)
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// The optimizer was made by candle's `new`, which has no names; it is between the two steps of SAM, or holds
    /// accumulated gradients.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.check_between_steps()?;
        let mut tensors = BTreeMap::new();
        for parameter in self.all_params() {
            let count = Tensor::new(parameter.updates as i64, &Device::Cpu)?;
            tensors.insert(format!("{}.{STEP}", parameter.name), count);
            if let Some(kernel) = parameter.kernel {
                let (slots, master) = parameter.state.tensors(&parameter.var)?;
                let master = master.into_iter().map(|master| (MASTER, master));
                for (slot, values) in kernel.slots.iter().copied().zip(slots).chain(master) {
                    tensors.insert(format!("{}.{slot}", parameter.name), values);
                }
            }
        }
        let metadata = [
            ("version".to_string(), VERSION.to_string()),
            (STEP.to_string(), self.step.to_string()),
            ("rules".to_string(), self.rules()),
        ];
        Ok(StateDict { tensors, metadata: metadata.into() })
    }

    /// Takes a state over, so that the next step has the bits that it would have had in the optimizer that saved it.
    ///
    /// Hyperparameters may differ from those of the optimizer that saved it, as in PyTorch: a slot that they need and the state
    /// does not have (momentum, or centring, that is switched on) starts in the next step; one that they do not need any more is
    /// dropped there, with a warning. A warning also says where master copies are asked for and the state has none: they start
    /// from the rounded parameters.
    ///
    /// # Errors
    /// The state is of another version or rule; a key is missing, unknown, or of another shape or type than the
    /// optimizer's, which are named. The optimizer is then as before.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.check_between_steps()?;
        let known = |key: &str| state.metadata.get(key).map_or("none", String::as_str);
        if known("version") != VERSION {
            return Err(mismatch(format!("its version is {}, but this program reads {VERSION}", known("version"))));
        }
        if known("rules") != self.rules() {
            return Err(mismatch(format!("it is of `{}`, but the optimizer is `{}`", known("rules"), self.rules())));
        }
        let step = state.number(STEP)?;
        let (mut used, mut without_master) = (0, 0);
        let mut loaded = Vec::new();
        for group in &self.groups {
            for parameter in &group.params {
                let kernel = state.kernel(&parameter.name, &group.rule);
                let key = format!("{}.{STEP}", parameter.name);
                let updates: i64 = state.tensor(&key, &Shape::from(()), DType::I64)?.to_scalar()?;
                let updates = u64::try_from(updates).map_err(|_| mismatch(format!("`{key}` is {updates}")))?;
                used += 1;
                let mut own = State::new(&parameter.var);
                if updates > 0 {
                    own = state.state(parameter, kernel)?;
                    used += kernel.slots.len() + usize::from(own.has_master());
                    without_master += usize::from(self.wants_master(parameter) && !own.has_master());
                }
                loaded.push((updates, (updates > 0).then_some(kernel), own));
            }
        }
        if used != state.tensors.len() {
            let all = self.state_keys();
            let extra = state.tensors.keys().find(|key| !all.contains(*key));
            return Err(mismatch(match extra {
                Some(key) => format!("`{key}` is unknown: the optimizer has no such parameter or slot"),
                None => "a parameter that was never updated has slots".to_string(),
            }));
        }
        let params = self.groups.iter_mut().flat_map(|g| &mut g.params);
        for (parameter, (updates, kernel, own)) in params.zip(loaded) {
            (parameter.updates, parameter.kernel, parameter.state) = (updates, kernel, own);
        }
        self.step = step;
        if without_master > 0 {
            tracing::warn!(
                "the saved state has no master copies of {without_master} parameters: they start from rounded values"
            );
        }
        Ok(())
    }

    /// Every key that a state of this optimizer may have.
    fn state_keys(&self) -> HashSet<String> {
        let mut keys = HashSet::new();
        for group in &self.groups {
            for parameter in &group.params {
                let slots = group.rule.kernels().into_iter().flat_map(|kernel| kernel.slots).copied();
                let slots = slots.chain([STEP]).chain(parameter.is_half().then_some(MASTER));
                keys.extend(slots.map(|slot| format!("{}.{slot}", parameter.name)));
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_saved_whole_and_errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = |value: f32| {
            let tensor = Tensor::new(&[value], &Device::Cpu).unwrap();
            StateDict { tensors: [("w.momentum_buffer".to_owned(), tensor)].into(), ..StateDict::default() }
        };
        let path = folder.path().join("state");
        for value in [0.0, 7.0] {
            state(value).save(&path).unwrap();
            let loaded = StateDict::load(&path).unwrap();
            assert_eq!(loaded.tensors["w.momentum_buffer"].to_vec1::<f32>().unwrap(), [value]);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let error = state(0.0).save(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if path == folder.path()), "{error}");
    }
}
