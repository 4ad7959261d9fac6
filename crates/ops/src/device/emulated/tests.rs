//! The ops by the kernels, in all number formats: values against the definitions in f64, gradients against those of the CPU in
//! f64, which `tests/ops` holds to differences of the definitions.

use super::with;
use candle_core::{DType, Device, Result, Tensor, Var};
use cases::{Case, tensor, values};
use naive::Array;

#[path = "../../../tests/ops/cases.rs"]
mod cases;
#[path = "../../../tests/ops/naive.rs"]
mod naive;

/// Errors relative to the largest value of a tensor (1 if that is less).
///
/// Sums here have at most some thousand terms, of which a thread adds up a few dozen and a tree the rest, so f32 and f64 lose less
/// than 6 bits: 2^-18 is 4e-6, 2^-47 is 7e-15, and what divides by a deviation loses some more. A 16-bit number is rounded to
/// half a unit of its last place, 2^-9 in bf16 and 2^-12 in f16, once in each of up to four operations of a row (product, norm,
/// product, sum), whose errors a gradient adds up over an axis; 5 and 6 times that is allowed.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::BF16 => 0.01,
        _ => 0.0015,
    }
}

fn undefined(_: &[Array]) -> Array {
    unreachable!("its value in f64 on the CPU is candle's")
}

fn layer_norm(shape: &[usize]) -> Case {
    Case {
        name: format!("layer_norm of {shape:?}"),
        shapes: vec![shape.to_vec(), vec![shape[shape.len() - 1]]],
        op: Box::new(|t| ops::layer_norm(&t[0], &t[1], 1e-3)),
        definition: Box::new(undefined),
    }
}

fn gelu(shape: &[usize]) -> Case {
    Case {
        name: format!("gelu of {shape:?}"),
        shapes: vec![shape.to_vec()],
        op: Box::new(|t| ops::gelu(&(&t[0] * 4.0)?)),
        definition: Box::new(undefined),
    }
}

/// At a rate whose scale all formats have.
fn attention_with_dropout(windows: usize, heads: ops::Heads, head_width: usize) -> Case {
    let op = move |t: &[Tensor]| ops::causal_attention(&t[0], heads, Some(ops::Masks::new(0.5, [7; 32])?));
    Case {
        name: format!("causal_attention with dropout, {windows} windows, {heads:?} of {head_width}"),
        op: Box::new(op),
        ..cases::causal_attention(windows, heads, head_width)
    }
}

/// Those without a definition, and larger ones: more than a warp to a row, more than a chunk to a channel, more than a part.
fn more() -> Vec<Case> {
    let mut cases = vec![
        cases::batch_norm([3, 2, 40, 41], true),
        cases::batch_norm([5, 1, 64, 32], false),
        cases::conv2d_batch_norm([3, 2, 40, 40], [3, 3, 3], [1, 1, 1, 1], true, true),
        cases::conv2d_bias([3, 2, 41, 40], [2, 3, 3], [1, 1, 1, 1], true),
        cases::rms_norm(&[70, 37]),
        cases::rms_norm(&[3, 1500]),
        layer_norm(&[70, 19]),
        layer_norm(&[2, 3, 64]),
        layer_norm(&[2, 1501]),
        layer_norm(&[1, 1]),
        gelu(&[3, 50]),
        gelu(&[1]),
        cases::embedding(7, 1033, 40),
        cases::embedding(20, 5, 2050),
        cases::cross_entropy(2, 1500, 0.1),
        cases::cross_entropy(300, 5, 0.0),
        cases::max_pool2d([2, 2, 17, 30], [3, 3, 2, 1]),
        cases::avg_pool2d([2, 2, 17, 30], [3, 3, 2, 1], false),
        cases::causal_attention(2, ops::Heads { heads: 2, context: 37 }, 3),
        cases::causal_attention(1, ops::Heads { heads: 1, context: 1 }, 1),
        cases::causal_attention(1, ops::Heads { heads: 1, context: 1030 }, 2),
        attention_with_dropout(2, ops::Heads { heads: 2, context: 37 }, 3),
        attention_with_dropout(1, ops::Heads { heads: 1, context: 1030 }, 1),
    ];
    for before in ["nothing", "gelu", "layer_norm"] {
        cases.extend([true, false].map(|residual| cases::fused_linear(13, [3, 5], before, residual)));
    }
    cases
}

/// And whether the value is held to the case's definition.
fn all() -> impl Iterator<Item = (Case, bool)> {
    cases::all().into_iter().map(|case| (case, true)).chain(more().into_iter().map(|case| (case, false)))
}

/// Numbers that the dtype has.
fn arguments(case: &Case, dtype: DType) -> Vec<Array> {
    case.arguments().iter().map(|a| Array { values: values(&tensor(a, dtype)), ..a.clone() }).collect()
}

fn variables(arrays: &[Array], dtype: DType) -> Vec<Tensor> {
    arrays.iter().map(|array| Var::from_tensor(&tensor(array, dtype)).unwrap().as_tensor().clone()).collect()
}

/// The gradients of `sum(dy output)`.
fn gradients(output: &Tensor, dy: &Array, arguments: &[Tensor]) -> Result<Vec<Tensor>> {
    let grads = (output * tensor(dy, output.dtype()))?.sum_all()?.backward()?;
    Ok(arguments.iter().map(|a| grads.get(a).cloned().expect("a gradient for each argument")).collect())
}

#[track_caller]
fn close(found: &Tensor, expected: &[f64], tolerance: f64, what: impl std::fmt::Display) {
    let found = values(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, element {i}: {a} is not {b}");
    }
}

fn check(dtype: DType) {
    for (case, is_defined) in all() {
        let arrays = arguments(&case, dtype);
        let (wide, narrow) = (variables(&arrays, DType::F64), variables(&arrays, dtype));
        let expected = (case.op)(&wide).unwrap();
        with(|| {
            let name = format!("{} in {dtype:?}", case.name);
            let found = (case.op)(&narrow).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((found.dims(), found.dtype()), (expected.dims(), dtype), "{name}");
            let expected_values = values(&expected);
            let defined = is_defined.then(|| (case.definition)(&arrays).values);
            close(&found, defined.as_ref().unwrap_or(&expected_values), tolerance(dtype), &name);
            // Where rounding decides on which side of 0 a rectifier is, no gradient is asked for.
            let mut dy = Array::noise(expected.dims(), 99);
            dy.values = values(&tensor(&dy, dtype));
            for ((dy, a), b) in dy.values.iter_mut().zip(values(&found)).zip(expected_values) {
                if (a == 0.0) != (b == 0.0) {
                    *dy = 0.0;
                }
            }
            let found = gradients(&found, &dy, &narrow).unwrap_or_else(|e| panic!("{name}: {e}"));
            let expected = gradients(&expected, &dy, &wide).unwrap();
            for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!((found.dims(), found.dtype()), (expected.dims(), dtype), "{name}");
                close(found, &values(expected), tolerance(dtype), format!("{name}, gradient {which}"));
            }
        });
    }
}

#[test]
fn f64() {
    check(DType::F64);
}

#[test]
fn f32() {
    check(DType::F32);
}

#[test]
fn bf16() {
    check(DType::BF16);
}

#[test]
fn f16() {
    check(DType::F16);
}

/// The same values as a part of something larger, with the first and last dimension swapped.
#[test]
fn arguments_and_gradients_need_not_be_contiguous() -> Result<()> {
    for case in [
        cases::convolution([2, 4, 5, 7], [6, 3, 3], [2, 1, 1, 2]),
        cases::conv2d_batch_norm([3, 2, 5, 4], [3, 3, 2], [2, 1, 1, 1], true, true),
        cases::conv2d_bias([2, 3, 6, 7], [4, 3, 3], [1, 1, 1, 1], true),
        cases::max_pool2d([2, 3, 7, 6], [3, 3, 2, 1]),
        cases::rms_norm(&[5, 3]),
        cases::cross_entropy(5, 3, 0.1),
        cases::embedding(5, 3, 11),
        cases::fused_linear(13, [3, 5], "layer_norm", true),
        cases::causal_attention(2, ops::Heads { heads: 2, context: 5 }, 3),
        gelu(&[3, 50]),
    ] {
        with(|| -> Result<()> {
            let arrays = arguments(&case, DType::F32);
            let (plain, others) = (variables(&arrays, DType::F32), variables(&arrays, DType::F32));
            let scattered = others.iter().map(|t| {
                let last = t.rank() - 1;
                let swapped = t.transpose(0, last)?.contiguous()?;
                let larger = Tensor::cat(&[&swapped, &swapped, &swapped], 0)?;
                larger.narrow(0, swapped.dim(0)?, swapped.dim(0)?)?.transpose(0, last)
            });
            let scattered = scattered.collect::<Result<Vec<_>>>()?;
            let (a, b) = ((case.op)(&plain)?, (case.op)(&scattered)?);
            assert_eq!(values(&a), values(&b), "{}", case.name);
            let dy = Array::noise(a.dims(), 99);
            let found = gradients(&a, &dy, &plain)?;
            // Multiplication passes a transposed gradient on.
            let last = a.rank().saturating_sub(1);
            let turn = |t: &Tensor| if t.rank() > 0 { t.transpose(0, last) } else { Ok(t.clone()) };
            let grads = (turn(&b)? * turn(&tensor(&dy, DType::F32))?)?.sum_all()?.backward()?;
            for (found, var) in found.iter().zip(&others) {
                assert_eq!(values(found), values(grads.get(var).expect("a gradient")), "{}", case.name);
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn arguments_without_a_gradient_get_none() -> Result<()> {
    // A residual is added by candle, whose sums give each term its gradient.
    let with_several = |case: &Case| {
        case.shapes.len() > 1 && !["conv2d of", "fused_linear"].iter().any(|op| case.name.starts_with(op))
    };
    let cases = all().map(|(case, _)| case).filter(with_several);
    for case in cases.chain([cases::convolution([2, 4, 5, 7], [6, 3, 3], [2, 1, 1, 2])]) {
        with(|| -> Result<()> {
            let arrays = arguments(&case, DType::F32);
            let tracked = variables(&arrays, DType::F32);
            let output = (case.op)(&tracked)?;
            let dy = Array::noise(output.dims(), 99);
            let expected = gradients(&output, &dy, &tracked)?;
            for which in 0..arrays.len() {
                let mut arguments: Vec<Tensor> = arrays.iter().map(|a| tensor(a, DType::F32)).collect();
                arguments[which] = tracked[which].clone();
                let output = (case.op)(&arguments)?;
                let grads = (&output * tensor(&dy, DType::F32))?.sum_all()?.backward()?;
                for (i, argument) in arguments.iter().enumerate() {
                    let grad = grads.get(argument).map(values);
                    assert_eq!(grad, (i == which).then(|| values(&expected[i])), "{}, argument {i}", case.name);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The host cannot look at them without waiting for the device.
#[test]
fn labels_and_indices_beyond_the_last_give_nan() -> Result<()> {
    with(|| {
        let x = Var::from_tensor(&Tensor::ones((3, 2), DType::F32, &Device::Cpu)?)?;
        let indices = Tensor::new(&[0u32, 3, 1], &Device::Cpu)?;
        let loss = ops::cross_entropy(&x, &Tensor::new(&[0u32, 2, 1], &Device::Cpu)?, 0.0)?;
        assert!(values(&loss)[0].is_nan());
        let dx = values(loss.backward()?.get(&x).expect("a gradient"));
        assert_eq!(dx.iter().map(|x| x.is_nan()).collect::<Vec<_>>(), [false, false, true, true, false, false]);
        let y = ops::embedding(&x, &indices)?;
        assert_eq!(values(&y).iter().map(|x| x.is_nan()).collect::<Vec<_>>(), [false, false, true, true, false, false]);
        assert_eq!(values(y.sum_all()?.backward()?.get(&x).expect("a gradient")), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        Ok(())
    })
}

/// The masks are those of the CPU, bit for bit.
#[test]
fn dropout_drops_what_the_cpu_drops() -> Result<()> {
    for len in [1, 16, 37, 5000] {
        let masks = ops::Masks::new(0.3, std::array::from_fn(|i| i as u8 * 7))?;
        let x = Var::from_tensor(&tensor(&Array::noise(&[len], 3), DType::F32))?;
        let run = || -> Result<_> {
            let y = ops::dropout(&x, masks.clone())?;
            let dx = y.sqr()?.sum_all()?.backward()?;
            Ok((values(&y), values(dx.get(&x).expect("a gradient"))))
        };
        assert_eq!(with(run)?, run()?, "{len} values");
    }
    Ok(())
}

/// The gradient goes to the first of equal maxima, to the last NaN, and of nothing but -infinity to the first pixel.
#[test]
fn equal_maxima_are_those_of_the_cpu() -> Result<()> {
    for special in [0.0, f32::NAN, f32::NEG_INFINITY] {
        let values_of = |i: usize| if i.is_multiple_of(3) { special } else { (i * i % 4) as f32 };
        let x: Vec<f32> = (0..2 * 9 * 8).map(values_of).collect();
        let mut x = Tensor::from_vec(x, (1, 2, 9, 8), &Device::Cpu)?;
        if special.is_infinite() {
            x = Tensor::full(special, x.shape(), &Device::Cpu)?;
        }
        let x = Var::from_tensor(&x)?;
        for pool in [ops::Pool2d::square(2), ops::Pool2d { kernel: (3, 3), stride: 2, padding: 1 }] {
            let run = || -> Result<_> {
                let y = ops::max_pool2d(&x, pool)?;
                let dy = tensor(&Array::noise(y.dims(), 99), DType::F32);
                let grads = y.mul(&dy)?.backward()?;
                Ok(values(grads.get(&x).expect("a gradient")))
            };
            assert_eq!(with(run)?, run()?, "{special}, {pool:?}");
        }
    }
    Ok(())
}

/// What is no number stays, and infinities are what they are on the CPU.
#[test]
fn what_is_not_finite_is_as_on_the_cpu() -> Result<()> {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = Tensor::new(&[[nan, 1.0, 2.0], [inf, 1.0, 2.0], [-inf, 1.0, 2.0], [-inf, -inf, -inf]], &Device::Cpu)?;
    let images = rows.reshape((1, 1, 4, 3))?;
    let labels = |i: u32| Tensor::new(&[i], &Device::Cpu);
    let run = || -> Result<Vec<Vec<f64>>> {
        let ones = Tensor::ones(3, DType::F32, &Device::Cpu)?;
        let one = Tensor::ones(1, DType::F32, &Device::Cpu)?;
        let mut all = vec![
            values(&ops::relu(&rows)?),
            values(&ops::add_relu(&rows, &rows)?),
            values(&ops::gelu(&rows.narrow(0, 0, 1)?)?),
            values(&ops::layer_norm(&rows, &ones, 1e-5)?),
            values(&ops::rms_norm(&rows.narrow(0, 0, 1)?, &ones, 1e-5)?),
            values(&ops::scale_shift(&images, &one, &one, true)?),
            values(&ops::batch_norm(&images, &one, &one, 1e-5, true)?.output),
            values(&ops::max_pool2d(&images, ops::Pool2d { kernel: (2, 2), stride: 1, padding: 1 })?),
        ];
        for row in 0..4 {
            for label in 0..3 {
                for smoothing in [0.0, 0.1] {
                    all.push(values(&ops::cross_entropy(&rows.narrow(0, row, 1)?, &labels(label)?, smoothing)?));
                }
            }
        }
        Ok(all)
    };
    for (which, (found, expected)) in with(run)?.iter().zip(run()?).enumerate() {
        for (a, b) in found.iter().zip(&expected) {
            assert!(
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-5,
                "{which}: {found:?} and {expected:?}"
            );
        }
    }
    Ok(())
}
