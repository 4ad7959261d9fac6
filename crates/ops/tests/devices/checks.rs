//! What every device must do, over the table of ops: values are those of the definitions in f64, gradients those of the CPU in
//! f64, which `tests/ops` holds to differences of the definitions, and corners are the CPU's.
#![allow(dead_code, reason = "each program uses a part")]

use candle_core::{DType, Device, Result, Tensor, Var};
use cases::{Case, tensor, values};
use naive::Array;

#[path = "../ops/cases.rs"]
mod cases;
#[path = "../ops/naive.rs"]
mod naive;

pub type Outcome = std::result::Result<String, Box<dyn std::error::Error>>;

/// A device, and how an op on it is run.
pub struct Target<'a> {
    pub device: Device,
    /// Whether the ops run their kernels there.
    pub has_kernels: bool,
    /// Calls its argument; a stand-in for a device is on meanwhile.
    pub run: &'a dyn Fn(&mut dyn FnMut()),
}

impl Target<'_> {
    /// The device itself.
    pub fn new(device: Device) -> Self {
        Self { has_kernels: device.is_cuda(), device, run: &|f| f() }
    }

    fn on<T>(&self, f: impl FnOnce() -> T) -> T {
        let (mut f, mut out) = (Some(f), None);
        (self.run)(&mut || out = f.take().map(|f| f()));
        out.expect("it was run")
    }

    /// The number formats whose errors are ours to bound: on Metal some ops leave 16-bit ones to candle, and there is no f64.
    pub fn dtypes(&self) -> &'static [DType] {
        let all = &[DType::F32, DType::F64, DType::BF16, DType::F16];
        if self.has_kernels || self.device.is_cpu() { all } else { &all[..1] }
    }
}

pub type Check = fn(&Target) -> Outcome;

/// Beside the table.
pub const CHECKS: [(&str, Check); 7] = [
    ("arguments and gradients that are not contiguous", not_contiguous),
    ("arguments without a gradient get none", without_gradient),
    ("a convolution in several parts", parts),
    ("labels and indices beyond the last give NaN", beyond_the_last),
    ("dropout drops what the CPU drops", dropped),
    ("the gradient of equal maxima", equal_maxima),
    ("what is not finite", not_finite),
];

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
    let op = move |t: &[Tensor]| ops::causal_attention(&t[0], heads, Some(ops::DropoutMasks::new(0.5, [7; 32])?));
    Case {
        name: format!("causal_attention with dropout, {windows} windows, {heads:?} of {head_width}"),
        op: Box::new(op),
        ..cases::causal_attention(windows, heads, head_width)
    }
}

/// At a rate whose scale all formats have.
fn dropout(len: usize) -> Case {
    Case {
        name: format!("dropout of {len}"),
        shapes: vec![vec![len]],
        op: Box::new(|t| ops::dropout(&t[0], ops::DropoutMasks::new(0.5, [7; 32])?)),
        definition: Box::new(undefined),
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
        dropout(1),
        dropout(5003),
        cases::embedding(7, 1033, 40),
        cases::embedding(20, 5, 2050),
        cases::cross_entropy(2, 1500, 0.1),
        cases::cross_entropy(300, 5, 0.0),
        cases::max_pool2d([2, 2, 17, 30], [3, 3, 2, 1]),
        cases::avg_pool2d([2, 2, 17, 30], [3, 3, 2, 1], false),
        cases::shortcut([2, 3, 9, 11], 2, 7),
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

/// A row for each op: how many cases it has, and the largest error in each number format.
pub fn table(target: &Target, dtypes: &[DType]) -> Vec<(String, Outcome)> {
    let mut rows: Vec<(String, usize, Vec<f64>, Vec<String>)> = Vec::new();
    for (case, is_defined) in all() {
        let op = case.name.split([' ', ',']).next().unwrap_or_default();
        let row = rows.iter().position(|row| row.0 == op).unwrap_or_else(|| {
            rows.push((op.to_owned(), 0, vec![0.0; dtypes.len()], Vec::new()));
            rows.len() - 1
        });
        let (_, cases, worst, failures) = &mut rows[row];
        *cases += 1;
        for (worst, &dtype) in worst.iter_mut().zip(dtypes) {
            match error_of(target, &case, is_defined, dtype) {
                Ok(error) => *worst = worst.max(error),
                Err(error) => failures.push(format!("{} in {dtype:?}: {}", case.name, one_line(&*error))),
            }
        }
    }
    let outcome = |(op, cases, worst, failures): (String, usize, Vec<f64>, Vec<String>)| {
        let errors = dtypes.iter().zip(worst).map(|(dtype, worst)| format!("{} {worst:.0e}", dtype.as_str()));
        let outcome = match failures.first() {
            None => Ok(format!("{cases} cases, errors {}", errors.collect::<Vec<_>>().join(", "))),
            Some(first) => Err(format!("{} failures, the first: {first}", failures.len()).into()),
        };
        (op, outcome)
    };
    rows.into_iter().map(outcome).collect()
}

/// What follows the first line of candle's errors is a backtrace.
fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Numbers that the dtype has.
fn arguments(case: &Case, dtype: DType) -> Vec<Array> {
    case.arguments().iter().map(|a| Array { values: values(&tensor(a, dtype)), ..a.clone() }).collect()
}

fn variables(arrays: &[Array], dtype: DType, device: &Device) -> Result<Vec<Tensor>> {
    arrays.iter().map(|a| Ok(Var::from_tensor(&tensor(a, dtype).to_device(device)?)?.as_tensor().clone())).collect()
}

/// The gradients of `sum(dy output)`.
fn gradients(output: &Tensor, dy: &Array, arguments: &[Tensor]) -> Result<Vec<Tensor>> {
    let grads = ops::backward(&(output * tensor(dy, output.dtype()).to_device(output.device())?)?)?;
    Ok(arguments.iter().map(|a| grads.get(a).cloned().expect("a gradient for each argument")).collect())
}

/// The largest error, relative as [`tolerance`] says, which is within it.
fn close(
    found: &Tensor,
    expected: &Tensor,
    values_expected: &[f64],
    dtype: DType,
    what: &str,
) -> std::result::Result<f64, String> {
    if (found.dims(), found.dtype()) != (expected.dims(), dtype) {
        return Err(format!("{what} is of {:?} and {:?}, not {:?}", found.dims(), found.dtype(), expected.dims()));
    }
    let scale = values_expected.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    let mut worst = 0.0f64;
    for (i, (a, b)) in values(found).iter().zip(values_expected).enumerate() {
        let error = (a - b).abs() / scale;
        if error.is_nan() || error > tolerance(dtype) {
            return Err(format!("{what}, element {i}: {a} is not {b}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

fn error_of(
    target: &Target,
    case: &Case,
    is_defined: bool,
    dtype: DType,
) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let arrays = arguments(case, dtype);
    let (wide, narrow) = (variables(&arrays, DType::F64, &Device::Cpu)?, variables(&arrays, dtype, &target.device)?);
    let expected = (case.op)(&wide)?;
    let expected_values = values(&expected);
    let found = target.on(|| (case.op)(&narrow))?;
    let defined = is_defined.then(|| (case.definition)(&arrays).values);
    let mut worst = close(&found, &expected, defined.as_ref().unwrap_or(&expected_values), dtype, "the value")?;
    // Where rounding decides on which side of 0 a rectifier is, no gradient is asked for.
    let mut dy = Array::noise(expected.dims(), 99);
    dy.values = values(&tensor(&dy, dtype));
    for ((dy, a), b) in dy.values.iter_mut().zip(values(&found)).zip(expected_values) {
        if (a == 0.0) != (b == 0.0) {
            *dy = 0.0;
        }
    }
    let found = target.on(|| gradients(&found, &dy, &narrow))?;
    for (which, (found, expected)) in found.iter().zip(&gradients(&expected, &dy, &wide)?).enumerate() {
        worst = worst.max(close(found, expected, &values(expected), dtype, &format!("gradient {which}"))?);
    }
    Ok(worst)
}

/// The same values as a part of something larger, with the first and last dimension swapped.
fn not_contiguous(target: &Target) -> Outcome {
    let cases = [
        cases::convolution([2, 4, 5, 7], [6, 3, 3], [2, 1, 1, 2]),
        cases::conv2d_batch_norm([3, 2, 5, 4], [3, 3, 2], [2, 1, 1, 1], true, true),
        cases::conv2d_bias([2, 3, 6, 7], [4, 3, 3], [1, 1, 1, 1], true),
        cases::max_pool2d([2, 3, 7, 6], [3, 3, 2, 1]),
        cases::rms_norm(&[5, 3]),
        cases::cross_entropy(5, 3, 0.1),
        cases::embedding(5, 3, 11),
        cases::fused_linear(13, [3, 5], "layer_norm", true),
        cases::shortcut([2, 3, 9, 11], 2, 7),
        cases::causal_attention(2, ops::Heads { heads: 2, context: 5 }, 3),
        gelu(&[3, 50]),
    ];
    for case in &cases {
        let arrays = arguments(case, DType::F32);
        let make = || variables(&arrays, DType::F32, &target.device);
        let (plain, others) = (make()?, make()?);
        target.on(|| -> Outcome {
            let scattered = others.iter().map(|t| {
                let last = t.rank() - 1;
                let swapped = t.transpose(0, last)?.contiguous()?;
                let larger = Tensor::cat(&[&swapped, &swapped, &swapped], 0)?;
                larger.narrow(0, swapped.dim(0)?, swapped.dim(0)?)?.transpose(0, last)
            });
            let scattered = scattered.collect::<Result<Vec<_>>>()?;
            let (a, b) = ((case.op)(&plain)?, (case.op)(&scattered)?);
            same(&values(&a), &values(&b), &case.name)?;
            let dy = Array::noise(a.dims(), 99);
            let found = gradients(&a, &dy, &plain)?;
            // Multiplication passes a transposed gradient on.
            let last = a.rank().saturating_sub(1);
            let turn = |t: &Tensor| if t.rank() > 0 { t.transpose(0, last) } else { Ok(t.clone()) };
            let grads = (turn(&b)? * turn(&tensor(&dy, DType::F32).to_device(&target.device)?)?)?.backward()?;
            for (found, var) in found.iter().zip(&others) {
                let other = grads.get(var).ok_or_else(|| format!("{}: no gradient", case.name))?;
                same(&values(found), &values(other), &format!("{}, a gradient", case.name))?;
            }
            Ok(String::new())
        })?;
    }
    Ok(format!("{} ops, the same bits as of contiguous ones", cases.len()))
}

fn same<T: PartialEq + std::fmt::Debug>(a: &T, b: &T, what: &str) -> std::result::Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what}: {a:?} and {b:?}")) }
}

fn without_gradient(target: &Target) -> Outcome {
    // A residual is added by candle, whose sums give each term its gradient.
    let with_several = |case: &Case| {
        case.shapes.len() > 1 && !["conv2d of", "fused_linear"].iter().any(|op| case.name.starts_with(op))
    };
    let cases = all().map(|(case, _)| case).filter(with_several);
    let mut count = 0;
    for case in cases.chain([cases::convolution([2, 4, 5, 7], [6, 3, 3], [2, 1, 1, 2])]) {
        let arrays = arguments(&case, DType::F32);
        let tracked = variables(&arrays, DType::F32, &target.device)?;
        target.on(|| -> Outcome {
            let output = (case.op)(&tracked)?;
            let dy = Array::noise(output.dims(), 99);
            let expected = gradients(&output, &dy, &tracked)?;
            for which in 0..arrays.len() {
                let plain = arrays.iter().map(|a| tensor(a, DType::F32).to_device(&target.device));
                let mut arguments = plain.collect::<Result<Vec<_>>>()?;
                arguments[which] = tracked[which].clone();
                let output = (case.op)(&arguments)?;
                let grads = (&output * tensor(&dy, DType::F32).to_device(&target.device)?)?.backward()?;
                for (i, argument) in arguments.iter().enumerate() {
                    let expected = (i == which).then(|| values(&expected[i]));
                    same(&grads.get(argument).map(values), &expected, &format!("{}, argument {i}", case.name))?;
                }
            }
            Ok(String::new())
        })?;
        count += 1;
    }
    Ok(format!("{count} cases"))
}

/// Images whose columns take more memory than a part has; in f64, since the weight's gradient has sums of 327,680 terms.
fn parts(target: &Target) -> Outcome {
    let case = cases::convolution([20, 16, 128, 128], [1, 3, 3], [1, 1, 1, 1]);
    let error = error_of(target, &case, false, DType::F64)?;
    Ok(format!("error {error:.0e}"))
}

/// The host cannot look at them without waiting for the device.
fn beyond_the_last(target: &Target) -> Outcome {
    if !target.has_kernels {
        return Ok("an error here".to_owned());
    }
    target.on(|| {
        let x = Var::from_tensor(&Tensor::ones((3, 2), DType::F32, &target.device)?)?;
        let numbers = |numbers: [u32; 3]| Tensor::new(&numbers, &target.device);
        let loss = ops::cross_entropy(&x, &numbers([0, 2, 1])?, 0.0)?;
        let dx = values(loss.backward()?.get(&x).expect("a gradient"));
        let y = ops::embedding(&x, &numbers([0, 3, 1])?)?;
        let dy = values(y.backward()?.get(&x).expect("a gradient"));
        let is_nan = |values: &[f64]| values.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        let second = vec![false, false, true, true, false, false];
        same(&is_nan(&values(&loss)), &vec![true], "the loss")?;
        same(&is_nan(&dx), &second, "the gradient of the loss")?;
        same(&is_nan(&values(&y)), &second, "the rows")?;
        same(&dy, &vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0], "the gradient of the rows")?;
        Ok("one of three".to_owned())
    })
}

/// The masks are those of the CPU, bit for bit.
fn dropped(target: &Target) -> Outcome {
    for len in [1, 16, 37, 5000] {
        let masks = ops::DropoutMasks::new(0.3, std::array::from_fn(|i| i as u8 * 7))?;
        let run = |device: &Device| -> Result<_> {
            let x = Var::from_tensor(&tensor(&Array::noise(&[len], 3), DType::F32).to_device(device)?)?;
            let y = ops::dropout(&x, masks.clone())?;
            let dx = y.sqr()?.backward()?;
            Ok((values(&y), values(dx.get(&x).expect("a gradient"))))
        };
        same(&target.on(|| run(&target.device))?, &run(&Device::Cpu)?, &format!("{len} values"))?;
    }
    Ok("the CPU's bits".to_owned())
}

/// It goes to the first of equal maxima, to the last NaN, and of nothing but -infinity to the first pixel.
fn equal_maxima(target: &Target) -> Outcome {
    for special in [0.0, f32::NAN, f32::NEG_INFINITY] {
        let values_of = |i: usize| if i.is_multiple_of(3) { special } else { (i * i % 4) as f32 };
        let x: Vec<f32> = (0..2 * 9 * 8).map(values_of).collect();
        let mut x = Tensor::from_vec(x, (1, 2, 9, 8), &Device::Cpu)?;
        if special.is_infinite() {
            x = Tensor::full(special, x.shape(), &Device::Cpu)?;
        }
        for pool in [ops::Pool2dOptions::square(2), ops::Pool2dOptions { kernel: (3, 3), stride: 2, padding: 1 }] {
            let run = |device: &Device| -> Result<_> {
                let x = Var::from_tensor(&x.to_device(device)?)?;
                let y = ops::max_pool2d(&x, pool)?;
                let dy = tensor(&Array::noise(y.dims(), 99), DType::F32).to_device(device)?;
                let grads = y.mul(&dy)?.backward()?;
                Ok(values(grads.get(&x).expect("a gradient")))
            };
            same(&target.on(|| run(&target.device))?, &run(&Device::Cpu)?, &format!("{special}, {pool:?}"))?;
        }
    }
    Ok("where the CPU's goes".to_owned())
}

/// NaN stays, and infinities are what they are on the CPU.
fn not_finite(target: &Target) -> Outcome {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let run = |device: &Device| -> Result<Vec<Vec<f64>>> {
        let rows = Tensor::new(&[[nan, 1.0, 2.0], [inf, 1.0, 2.0], [-inf, 1.0, 2.0], [-inf, -inf, -inf]], device)?;
        let images = rows.reshape((1, 1, 4, 3))?;
        let (ones, one) = (Tensor::ones(3, DType::F32, device)?, Tensor::ones(1, DType::F32, device)?);
        let mut all = vec![
            values(&ops::relu(&rows)?),
            values(&ops::add_relu(&rows, &rows)?),
            values(&ops::gelu(&rows.narrow(0, 0, 1)?)?),
            values(&ops::layer_norm(&rows, &ones, 1e-5)?),
            values(&ops::rms_norm(&rows.narrow(0, 0, 1)?, &ones, 1e-5)?),
            values(&ops::scale_shift(&images, &one, &one, true)?),
            values(&ops::batch_norm(&images, &one, &one, 1e-5, true)?.output),
            values(&ops::max_pool2d(&images, ops::Pool2dOptions { kernel: (2, 2), stride: 1, padding: 1 })?),
        ];
        for row in 0..4 {
            for label in 0..3u32 {
                for smoothing in [0.0, 0.1] {
                    let label = Tensor::new(&[label], device)?;
                    all.push(values(&ops::cross_entropy(&rows.narrow(0, row, 1)?, &label, smoothing)?));
                }
            }
        }
        Ok(all)
    };
    for (which, (found, expected)) in target.on(|| run(&target.device))?.iter().zip(run(&Device::Cpu)?).enumerate() {
        for (a, b) in found.iter().zip(&expected) {
            if !(a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-5) {
                return Err(format!("output {which}: {found:?} and {expected:?}").into());
            }
        }
    }
    Ok("as on the CPU".to_owned())
}
