//! Differentiable operations that candle has only in parts, or whose gradient it computes slowly.
//!
//! Each has two forms: fused for f32 on the CPU, in plain Rust over rayon; and composed of candle's operations for all other
//! types and devices. The composed form in f64 is what tests hold the fused one to. No sum depends on how many threads there
//! are, nor on the width of the processor's vectors.

mod attention;
mod gelu;
mod layer_norm;
mod linear;

pub(super) use attention::{Heads, attention_logits, causal_attention};
pub(super) use gelu::gelu;
pub(super) use layer_norm::layer_norm;
pub(super) use linear::linear;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use std::ops::Deref;

/// Whether the fused form serves this tensor.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of an argument that was made contiguous.
fn values<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("{op} takes contiguous f32 values"),
    }
}

/// Calls `f` with the values of tensors on the CPU.
fn with_values<const N: usize, T>(
    op: &'static str,
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let guards = tensors.map(|tensor| tensor.storage_and_layout());
    let mut slices = [[].as_slice(); N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match storage.deref() {
            Storage::Cpu(storage) => values(op, storage, layout)?,
            _ => bail!("{op} takes values on the CPU"),
        };
    }
    f(slices)
}

/// Independent sums that are added up in order: as many as the widest vector has lanes.
const LANES: usize = 16;

/// The sum of `term(x, y)` over two slices of one length.
#[inline(always)]
fn sum2(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    for (sum, (&x, &y)) in sums.iter_mut().zip(rest) {
        *sum += term(x, y);
    }
    sums.iter().sum()
}

/// The sum of `term(x)` over a slice.
#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    sum2(x, x, |x, _| term(x))
}

/// The largest value of a slice; what is not a number is left out.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let xs = x.chunks_exact(LANES);
    let rest = xs.remainder();
    for x in xs {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// `y += a x`.
#[inline(always)]
fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// e^x with a relative error below 2e-7, in operations that vectorise. Below -87 it is e^-87, above 88 e^88.
///
/// `x = n ln 2 + r`; a polynomial for e^r (the one of Cephes' `expf`) and the power of two from its bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the last bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, of which the first has few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // `clamp` keeps what is not a number.
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let polynomial =
        ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1) * r
            + 0.5;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (polynomial * (r * r) + r + 1.0) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Values that are no two alike, in f64.
    pub(super) fn wave(shape: &[usize], scale: f64, shift: f64) -> Tensor {
        let len = shape.iter().product::<usize>();
        let values: Vec<f64> = (0..len).map(|i| scale * (i as f64 * 0.73 + shift).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Holds the fused form of `op` to the composed one in f64, and its gradient to central differences of that.
    ///
    /// The loss is a weighted sum of what `op` puts out. Differences of h = 1e-5 are off by the third derivative times 1e-10
    /// and by 1e-16 / h, all far below the tolerances, which are f32's.
    pub(super) fn check<const N: usize>(args: [&Tensor; N], op: impl Fn([&Tensor; N]) -> Result<Tensor>) {
        let loss = |args: [&Tensor; N]| -> (Tensor, Tensor) {
            let y = op(args).unwrap();
            let weights = wave(y.dims(), 1.0, 0.3).to_dtype(y.dtype()).unwrap();
            let loss = (&y * weights).unwrap().sum_all().unwrap();
            (y, loss)
        };
        let vars = args.map(|arg| Var::from_tensor(&arg.to_dtype(DType::F32).unwrap()).unwrap());
        let (y, fused) = loss(std::array::from_fn(|i| vars[i].as_tensor()));
        let (expected, _) = loss(args);
        for (i, (found, expected)) in flat(&y).into_iter().zip(flat(&expected)).enumerate() {
            assert!((found - expected).abs() < 2e-6 * (1.0 + expected.abs()), "value {i}: {found} is not {expected}");
        }
        let grads = fused.backward().unwrap();
        for (n, (arg, var)) in args.iter().zip(&vars).enumerate() {
            let found = flat(grads.get(var).unwrap_or_else(|| panic!("argument {n} has no gradient")));
            let values = flat(arg);
            for (i, found) in found.into_iter().enumerate() {
                let at = |h: f64| {
                    let mut values = values.clone();
                    values[i] += h;
                    let moved = Tensor::from_vec(values, arg.shape(), &Device::Cpu).unwrap();
                    let mut args = args;
                    args[n] = &moved;
                    loss(args).1.to_scalar::<f64>().unwrap()
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                    "argument {n}, gradient {i}: {found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn exp_is_right_and_keeps_what_is_not_a_number() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-1000.0)), (1.0, exp(-87.0), exp(-87.0)));
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn sums_and_the_maximum_take_every_value() {
        for at in 0..40 {
            let mut x = [-3f32; 40];
            x[at] = -1.0;
            x[(at + 1) % 40] = f32::NAN;
            assert_eq!(max(&x), -1.0);
        }
        for n in [0, 1, 15, 16, 17, 40] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum(&x, |x| 2.0 * x), (n * (n + 1)) as f32);
            assert_eq!(sum2(&x, &x, |x, y| x * y), (n * (n + 1) * (2 * n + 1) / 6) as f32);
        }
    }
}
