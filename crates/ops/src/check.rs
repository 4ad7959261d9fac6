//! What the tests of fused operations share.

use candle_core::{DType, Device, Result, Tensor, Var};

/// Values that are no two alike, in f64.
pub(crate) fn wave(shape: &[usize], scale: f64, shift: f64) -> Tensor {
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
pub(crate) fn check<const N: usize>(args: [&Tensor; N], op: impl Fn([&Tensor; N]) -> Result<Tensor>) {
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
