//! The state of an optimizer as named tensors, and as a safetensors file.

use crate::error::{Error, Result};
use crate::files::write_whole;
use candle_core::{DType, Device, Shape, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// The state of an optimizer, on the host.
///
/// Tensors: `<parameter>.<slot>` (f32, f64 for f64 parameters; the parameter's shape), `<parameter>.master` where there
/// is a master copy, and `<parameter>.step` (i64, no dimensions), how often that parameter was updated. A parameter that
/// was never updated has `step` 0 and no slots. `<parameter>.average` and `<parameter>.slow` (Lookahead's weights) are there where
/// they are kept. Metadata: `version`, `step` (the optimizer's steps), `rules`, and where there is an average its kind, `average`,
/// and how often it took the parameters, `averaged`.
///
/// Hyperparameters, schedules, clipping and frozen parameters are not part of it: they belong to the program that makes
/// the optimizer. The values of bf16 and f16 parameters without a master copy are in the model's own checkpoint only.
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    /// The tensors by key.
    pub tensors: BTreeMap<String, Tensor>,
    /// The metadata by key.
    pub metadata: BTreeMap<String, String>,
}

pub(super) fn mismatch(problem: String) -> Error {
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

    pub(super) fn number(&self, key: &str) -> Result<u64> {
        let text = self.metadata.get(key).ok_or_else(|| mismatch(format!("the metadata have no `{key}`")))?;
        text.parse().map_err(|_| mismatch(format!("`{key}` is `{text}`, which is not a count")))
    }

    /// A tensor, checked against what the optimizer has.
    pub(super) fn tensor(&self, key: &str, shape: &Shape, dtype: DType) -> Result<&Tensor> {
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
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => flat.to_vec1::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
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
