//! The parameters of a model, by name.

use crate::random::{Purpose, stream};
use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder, init::NormalOrUniform, var_builder::SimpleBackend};
use rand_distr::{Distribution, Normal, Uniform};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Tensors with these last names are buffers: they belong to the model and have no gradient.
const BUFFERS: [&str; 3] = ["running_mean", "running_var", "filters"];

/// The parameters and buffers of a model. A [`VarBuilder`] over it creates each tensor when a layer first asks for its name.
///
/// The initial values follow the layer's [`Init`] hint and come from a stream keyed by the seed and the name, so they depend
/// on nothing else: not on the order in which layers are created, not on the device. (The CPU generator of candle cannot be
/// seeded.) Clones share the tensors.
#[derive(Clone)]
pub struct Parameters {
    seed: u64,
    tensors: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl Parameters {
    /// An empty store that initialises from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, tensors: Arc::default() }
    }

    /// A builder of f32 layers on `device` that creates their tensors here.
    pub fn builder(&self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, device.clone())
    }

    /// The trainable parameters, sorted by name.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.select(|name| !is_buffer(name))
    }

    /// The buffers (running statistics of batch norm, filters that are fitted), sorted by name.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        self.select(is_buffer)
    }

    /// The number of trainable scalars.
    pub fn count(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    fn select(&self, keep: impl Fn(&str) -> bool) -> Vec<(String, Var)> {
        let tensors = self.lock();
        tensors.iter().filter(|(name, _)| keep(name)).map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        self.tensors.lock().expect("no holder of the lock panics")
    }
}

fn is_buffer(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| BUFFERS.contains(&last))
}

impl SimpleBackend for Parameters {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut tensors = self.lock();
        if let Some(var) = tensors.get(name) {
            if var.shape() != &shape {
                bail!("parameter `{name}` has the shape {:?}, and a layer asks for {shape:?}", var.shape());
            }
            return Ok(var.as_tensor().clone());
        }
        let values = initial_values(self.seed, name, &shape, init)?;
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)?;
        let tensor = var.as_tensor().clone();
        tensors.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.lock().get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => bail!("no parameter `{name}`, and none can be created without a shape"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}

/// The initial values of parameter `name`, drawn in f64.
fn initial_values(seed: u64, name: &str, shape: &Shape, init: Init) -> Result<Vec<f32>> {
    let normal = |mean, std| draw(seed, name, shape, Normal::new(mean, std));
    let uniform = |low, high| draw(seed, name, shape, Uniform::new_inclusive(low, high));
    match init {
        Init::Const(value) => Ok(vec![value as f32; shape.elem_count()]),
        Init::Randn { mean, stdev } => normal(mean, stdev),
        Init::Uniform { lo, up } => uniform(lo, up),
        Init::Kaiming { dist, fan, non_linearity } => {
            let std = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => normal(0.0, std),
                NormalOrUniform::Uniform => uniform(-(3f64.sqrt()) * std, 3f64.sqrt() * std),
            }
        }
    }
}

fn draw<D: Distribution<f64>, E: std::fmt::Display>(
    seed: u64,
    name: &str,
    shape: &Shape,
    distribution: std::result::Result<D, E>,
) -> Result<Vec<f32>> {
    match distribution {
        Ok(distribution) => {
            let values = distribution.sample_iter(stream(seed, Purpose::Init(name), 0));
            Ok(values.take(shape.elem_count()).map(|x| x as f32).collect())
        }
        Err(error) => bail!("parameter `{name}` cannot be initialised: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::init::{DEFAULT_KAIMING_NORMAL, DEFAULT_KAIMING_UNIFORM};

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn initial_values_depend_on_seed_and_name_and_not_on_the_order() {
        let created = |seed: u64, names: [&str; 2]| {
            let parameters = Parameters::new(seed);
            let vb = parameters.builder(&Device::Cpu);
            for name in names {
                candle_nn::linear(3, 4, vb.pp(name)).unwrap();
            }
            parameters.trainable().into_iter().map(|(name, var)| (name, values(&var))).collect::<Vec<_>>()
        };
        let there = created(7, ["a", "b"]);
        assert_eq!(there, created(7, ["b", "a"]));
        assert_ne!(there, created(8, ["a", "b"]));
        assert_ne!(there[1].1, there[3].1, "a.weight and b.weight");
        assert_eq!(
            there.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["a.bias", "a.weight", "b.bias", "b.weight"]
        );
    }

    /// Mean, standard deviation and bound of 40,000 values; the tolerances are five standard errors.
    #[test]
    fn initial_values_follow_the_hint() {
        let (fan_in, n) = (100, 40_000);
        let gain = 2f64.sqrt() / (fan_in as f64).sqrt();
        for (init, mean, std, bound) in [
            (DEFAULT_KAIMING_NORMAL, 0.0, gain, None),
            (DEFAULT_KAIMING_UNIFORM, 0.0, gain, Some(gain * 3f64.sqrt())),
            (Init::Uniform { lo: 1.0, up: 3.0 }, 2.0, 1.0 / 3f64.sqrt(), Some(3.0)),
            (Init::Randn { mean: -1.0, stdev: 0.5 }, -1.0, 0.5, None),
        ] {
            let parameters = Parameters::new(0);
            let tensor = parameters.builder(&Device::Cpu).get_with_hints((n / fan_in, fan_in), "weight", init).unwrap();
            let values: Vec<f64> = values(&tensor).into_iter().map(f64::from).collect();
            let found_mean = values.iter().sum::<f64>() / n as f64;
            let found_std = (values.iter().map(|x| (x - found_mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            assert!((found_mean - mean).abs() < 5.0 * std / (n as f64).sqrt(), "{init:?}: mean {found_mean}");
            assert!((found_std / std - 1.0).abs() < 5.0 / (2.0 * n as f64).sqrt(), "{init:?}: deviation {found_std}");
            assert!(bound.is_none_or(|bound| values.iter().all(|x| x.abs() <= bound + 1e-6)), "{init:?}");
        }
        let parameters = Parameters::new(0);
        let tensor = parameters.builder(&Device::Cpu).get_with_hints(3, "bias", Init::Const(0.25)).unwrap();
        assert_eq!(values(&tensor), [0.25; 3]);
    }

    #[test]
    fn a_name_has_one_tensor_and_one_shape() {
        let parameters = Parameters::new(0);
        let vb = parameters.builder(&Device::Cpu);
        let tied = [vb.get((2, 3), "weight").unwrap(), vb.get((2, 3), "weight").unwrap()];
        assert_eq!(tied[0].id(), tied[1].id());
        let message = vb.get((3, 2), "weight").unwrap_err().to_string();
        assert!(message.contains("`weight`") && message.contains("[2, 3]") && message.contains("[3, 2]"), "{message}");
    }
}
