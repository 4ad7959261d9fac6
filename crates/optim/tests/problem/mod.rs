//! The noisy quadratic of `fixtures/generate.py`, repeated bit by bit: its head says what is computed.
#![allow(dead_code, reason = "each test file uses a part")]

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};

pub const TENSORS: [(&str, &[usize]); 4] = [("a", &[3, 5]), ("b", &[7]), ("c", &[2, 3, 2, 2]), ("d", &[])];

fn hash(step: u64, tensor: u64, element: u64) -> u64 {
    let key = (step << 32).wrapping_add(tensor << 16).wrapping_add(element);
    let z = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn from_hash(step: u64, tensor: usize, len: usize, number: impl Fn(i64) -> i64) -> Vec<f64> {
    (0..len).map(|i| number((hash(step, tensor as u64, i as u64) >> 40) as i64) as f64 / 1024.0).collect()
}

pub fn noise(step: u64, tensor: usize, len: usize) -> Vec<f64> {
    from_hash(step, tensor, len, |h| h % 2049 - 1024)
}

pub fn target(tensor: usize, len: usize) -> Vec<f64> {
    noise(1_000_001, tensor, len)
}

pub fn curvature(tensor: usize, len: usize) -> Vec<f64> {
    from_hash(1_000_000, tensor, len, |h| 256 + h % 1025)
}

/// The parameters at their start.
pub fn start(dtype: DType) -> Result<Vec<(String, Var)>> {
    start_of(&TENSORS, dtype)
}

pub fn start_of(tensors: &[(&str, &[usize])], dtype: DType) -> Result<Vec<(String, Var)>> {
    let var = |(i, (name, shape)): (usize, &(&str, &[usize]))| {
        let theta = Tensor::from_vec(noise(0, i, shape.iter().product()), *shape, &Device::Cpu)?;
        Ok((name.to_string(), Var::from_tensor(&theta.to_dtype(dtype)?)?))
    };
    tensors.iter().enumerate().map(var).collect()
}

/// The values of a tensor as f64.
pub fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

/// A store without gradients of parameters: candle makes one only by going back from a loss.
pub fn empty_grads() -> Result<GradStore> {
    Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()
}

/// The gradients of update `t` at the present parameters, of those for which `has` says so, in the parameters' type.
pub fn grads(params: &[(String, Var)], t: u64, scale: f64, has: impl Fn(&str) -> bool) -> Result<GradStore> {
    let mut store = empty_grads()?;
    for (i, (_, var)) in params.iter().enumerate().filter(|(_, (name, _))| has(name)) {
        let len = var.elem_count();
        let (curvature, target, noise) = (curvature(i, len), target(i, len), noise(t, i, len));
        // f32 parameters get a gradient rounded once from the same formula in f32.
        let grad = if var.dtype() == DType::F64 {
            let theta = values(var)?;
            let all = (0..len).map(|k| (curvature[k] * (theta[k] - target[k]) + noise[k]) * scale);
            Tensor::from_iter(all.collect::<Vec<f64>>(), &Device::Cpu)?
        } else {
            let theta: Vec<f32> = var.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
            let all = (0..len)
                .map(|k| (curvature[k] as f32 * (theta[k] - target[k] as f32) + noise[k] as f32) * scale as f32);
            Tensor::from_iter(all.collect::<Vec<f32>>(), &Device::Cpu)?
        };
        store.insert(var, grad.reshape(var.shape())?.to_dtype(var.dtype())?);
    }
    Ok(store)
}
