//! What holds for every op, whatever its arguments.

use crate::{
    cases::{self, Case, tensor, values},
    naive::Array,
};
use candle_core::{DType, Result, Tensor, Var};

/// The output, and the gradients of `sum(dy output)`.
fn run(case: &Case, arguments: &[Tensor], dtype: DType) -> Result<(Tensor, Vec<Tensor>)> {
    let output = (case.op)(arguments)?;
    let dy = tensor(&Array::noise(output.dims(), 99), dtype);
    let grads = (&output * dy)?.sum_all()?.backward()?;
    let grads = arguments.iter().map(|a| grads.get(a).cloned().expect("a gradient for each argument")).collect();
    Ok((output, grads))
}

fn variables(arrays: &[Array], dtype: DType) -> Vec<Tensor> {
    arrays.iter().map(|array| Var::from_tensor(&tensor(array, dtype)).unwrap().as_tensor().clone()).collect()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64, what: impl std::fmt::Display) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, element {i}: {a} is not {b}");
    }
}

const PRECISIONS: [(DType, f64); 2] = [(DType::F64, 1e-12), (DType::F32, 1e-5)];

#[test]
fn the_output_is_as_defined() -> Result<()> {
    for case in cases::all() {
        let arguments = case.arguments();
        let expected = (case.definition)(&arguments);
        for (dtype, tolerance) in PRECISIONS {
            let tensors: Vec<Tensor> = arguments.iter().map(|a| tensor(a, dtype)).collect();
            let output = (case.op)(&tensors)?;
            assert_eq!((output.dims(), output.dtype()), (expected.shape.as_slice(), dtype), "{}", case.name);
            close(&values(&output), &expected.values, tolerance, format!("{} in {dtype:?}", case.name));
        }
    }
    Ok(())
}

/// Against central differences of the definition.
#[test]
fn the_gradients_are_those_of_the_definition() -> Result<()> {
    const STEP: f64 = 1e-5;
    for case in cases::all() {
        let arguments = case.arguments();
        let dy = Array::noise(&(case.definition)(&arguments).shape, 99);
        let loss = |arguments: &[Array]| -> f64 {
            (case.definition)(arguments).values.iter().zip(&dy.values).map(|(y, dy)| y * dy).sum()
        };
        let differences = arguments.iter().enumerate().map(|(which, argument)| -> Vec<f64> {
            let mut moved = arguments.clone();
            let mut loss_at = |i: usize, x: f64| {
                moved[which].values[i] = x;
                let loss = loss(&moved);
                moved[which].values[i] = argument.values[i];
                loss
            };
            let slope = |(i, &x): (usize, &f64)| (loss_at(i, x + STEP) - loss_at(i, x - STEP)) / (2.0 * STEP);
            argument.values.iter().enumerate().map(slope).collect()
        });
        let differences: Vec<Vec<f64>> = differences.collect();
        for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 1e-5)] {
            let (_, grads) = run(&case, &variables(&arguments, dtype), dtype)?;
            for (which, (grad, expected)) in grads.iter().zip(&differences).enumerate() {
                assert_eq!((grad.dims(), grad.dtype()), (arguments[which].shape.as_slice(), dtype), "{}", case.name);
                close(&values(grad), expected, tolerance, format!("{} in {dtype:?}, argument {which}", case.name));
            }
        }
    }
    Ok(())
}

#[test]
fn arguments_and_gradients_need_not_be_contiguous() -> Result<()> {
    for case in cases::all() {
        let (arguments, dtype) = (case.arguments(), DType::F32);
        let (output, grads) = run(&case, &variables(&arguments, dtype), dtype)?;
        // The same numbers as a part of something larger, with the first and last dimension swapped.
        let scattered: Vec<Tensor> = variables(&arguments, dtype)
            .iter()
            .map(|t| {
                let last = t.rank() - 1;
                let swapped = t.transpose(0, last)?.contiguous()?;
                let larger = Tensor::cat(&[&swapped, &swapped, &swapped], 0)?;
                larger.narrow(0, swapped.dim(0)?, swapped.dim(0)?)?.transpose(0, last)
            })
            .collect::<Result<_>>()?;
        let from_scattered = (case.op)(&scattered)?;
        assert_eq!(values(&from_scattered), values(&output), "{}", case.name);

        let dy = tensor(&Array::noise(output.dims(), 99), dtype);
        // Multiplication passes a transposed gradient on.
        let arguments = variables(&arguments, dtype);
        let output = (case.op)(&arguments)?;
        let last = output.rank().saturating_sub(1);
        let turn = |t: &Tensor| if t.rank() > 0 { t.transpose(0, last) } else { Ok(t.clone()) };
        let turned = (turn(&output)? * turn(&dy)?)?.sum_all()?.backward()?;
        for (argument, grad) in arguments.iter().zip(&grads) {
            assert_eq!(values(turned.get(argument).unwrap()), values(grad), "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn arguments_without_a_gradient_get_none() -> Result<()> {
    for case in cases::all() {
        let arrays = case.arguments();
        let tracked = variables(&arrays, DType::F32);
        let (_, all) = run(&case, &tracked, DType::F32)?;
        for which in 0..arrays.len() {
            let mut arguments: Vec<Tensor> = arrays.iter().map(|a| tensor(a, DType::F32)).collect();
            arguments[which] = tracked[which].clone();
            let output = (case.op)(&arguments)?;
            let dy = tensor(&Array::noise(output.dims(), 99), DType::F32);
            let grads = (&output * dy)?.sum_all()?.backward()?;
            for (i, argument) in arguments.iter().enumerate() {
                let grad = grads.get(argument).map(values);
                assert_eq!(grad, (i == which).then(|| values(&all[i])), "{}, argument {i}", case.name);
            }
        }
    }
    Ok(())
}

/// Too large for finite differences.
fn larger() -> Vec<Case> {
    vec![
        cases::convolution([37, 5, 9, 11], [6, 3, 3], [1, 1, 1, 1]),
        // Three images of a part, summed two and one at a time.
        cases::convolution([33, 2, 20, 20], [3, 3, 3], [1, 1, 1, 1]),
        cases::convolution([18, 8, 16, 16], [8, 3, 3], [2, 1, 1, 1]),
        cases::convolution([20, 8, 6, 6], [8, 1, 1], [1, 0, 1, 1]),
        cases::convolution([18, 8, 17, 16], [12, 3, 3], [2, 2, 2, 4]),
        cases::convolution([33, 6, 20, 20], [6, 3, 3], [1, 1, 1, 6]),
        cases::convolution([17, 5, 11, 9], [10, 5, 5], [2, 2, 1, 5]),
        // Enough channels for tiles of 2x2, which fill the images or do not.
        cases::convolution([33, 48, 8, 8], [50, 3, 3], [1, 1, 1, 1]),
        cases::convolution([18, 50, 7, 9], [48, 3, 3], [1, 2, 1, 1]),
        cases::convolution([3, 48, 5, 34], [49, 3, 3], [1, 0, 1, 1]),
        // Short rows, of more images than are taken at a time.
        cases::convolution([37, 20, 8, 8], [40, 3, 3], [2, 1, 1, 1]),
        cases::conv2d_batch_norm([37, 16, 8, 7], [16, 3, 3], [2, 1, 1, 1], true, true),
        // Many channels of few pixels.
        cases::convolution([9, 130, 4, 4], [144, 3, 3], [1, 1, 1, 1]),
        cases::batch_norm([33, 5, 9, 7], true),
        cases::conv2d_batch_norm([33, 3, 12, 10], [5, 3, 3], [1, 1, 1, 1], true, true),
        cases::conv2d_batch_norm([35, 3, 9, 16], [4, 3, 3], [2, 1, 1, 1], true, false),
        cases::conv2d_batch_norm([35, 4, 9, 16], [4, 3, 3], [1, 1, 1, 4], true, true),
        cases::conv2d_bias([33, 3, 12, 10], [5, 3, 3], [1, 1, 1, 1], true),
        cases::conv2d_bias([35, 4, 9, 16], [6, 3, 3], [2, 1, 1, 2], false),
        cases::fused_linear(1000, [130, 37], "nothing", true),
        cases::fused_linear(1000, [33, 70], "gelu", true),
        cases::fused_linear(1000, [33, 70], "layer_norm", false),
        cases::causal_attention(7, ops::Heads { heads: 3, context: 70 }, 9),
        cases::max_pool2d([9, 5, 9, 7], [2, 2, 2, 0]),
        cases::max_pool2d([9, 5, 9, 7], [3, 3, 2, 1]),
        cases::avg_pool2d([9, 5, 9, 7], [3, 3, 2, 1], false),
        cases::shortcut([9, 5, 9, 7], 2, 11),
        cases::convolution([18, 3, 9, 11], [16, 3, 3], [1, 1, 1, 1]),
        cases::rms_norm(&[333, 37]),
        cases::embedding(70, 33, 999),
        cases::cross_entropy(200, 11, 0.0),
        cases::cross_entropy(200, 37, 0.1),
    ]
}

/// For convolutions these are two methods.
#[test]
fn f32_and_f64_agree() -> Result<()> {
    for case in larger() {
        let both = [DType::F32, DType::F64].map(|dtype| run(&case, &variables(&case.arguments(), dtype), dtype));
        let [narrow, wide] = both;
        let ((narrow, narrow_grads), (wide, wide_grads)) = (narrow?, wide?);
        close(&values(&narrow), &values(&wide), 1e-5, &case.name);
        for (which, (narrow, wide)) in narrow_grads.iter().zip(&wide_grads).enumerate() {
            close(&values(narrow), &values(wide), 1e-5, format!("{}, argument {which}", case.name));
        }
    }
    Ok(())
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for case in larger() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (output, grads) = run(&case, &variables(&case.arguments(), DType::F32), DType::F32).unwrap();
                let bits = |t: &Tensor| values(t).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                (bits(&output), grads.iter().map(bits).collect::<Vec<_>>())
            })
        };
        let one = on(1);
        for threads in [2, 3, 7] {
            assert!(on(threads) == one, "{}: {threads} threads", case.name);
        }
    }
}

#[test]
fn no_images_are_no_work() -> Result<()> {
    let none = |shape: &[usize]| Var::zeros(shape, DType::F32, &candle_core::Device::Cpu);
    let (images, kernels) = (none(&[0, 3, 5, 5])?, none(&[2, 3, 3, 3])?);
    let y = ops::conv2d(&images, &kernels, ops::Conv2dOptions { padding: 1, ..Default::default() })?;
    assert_eq!(y.dims(), [0, 2, 5, 5]);
    let grads = y.sum_all()?.backward()?;
    assert_eq!(grads.get(&kernels).map(values), Some(vec![0.0; 54]));
    Ok(())
}

/// What the ops do not compute themselves, candle does, with the same values and gradients: here f16, as another device would.
#[test]
fn other_dtypes_go_to_candle() -> Result<()> {
    for case in cases::all() {
        // Numbers that f16 has.
        let arrays: Vec<Array> =
            case.arguments().iter().map(|a| Array { values: values(&tensor(a, DType::F16)), ..a.clone() }).collect();
        let [(narrow, narrow_grads), (wide, wide_grads)] =
            [DType::F16, DType::F64].map(|dtype| run(&case, &variables(&arrays, dtype), dtype).unwrap());
        assert_eq!((narrow.dtype(), narrow.dims()), (DType::F16, wide.dims()), "{}", case.name);
        close(&values(&narrow), &values(&wide), 0.01, &case.name);
        for (which, (narrow, wide)) in narrow_grads.iter().zip(&wide_grads).enumerate() {
            close(&values(narrow), &values(wide), 0.01, format!("{}, argument {which}", case.name));
        }
    }
    Ok(())
}
