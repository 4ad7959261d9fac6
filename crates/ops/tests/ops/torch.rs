//! Against PyTorch's values: `tests/fixtures/generate.py`.

use crate::cases::values;
use candle_core::{DType, Device, Result, Tensor, Var};
use ops::{Conv2dOptions, Pool2dOptions};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

#[track_caller]
fn close(found: &Tensor, expected: &Value, tolerance: f64, what: &str) {
    let (found, expected) = (values(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        let same = (a - b).abs() <= tolerance * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
        assert!(same, "{what}, element {i}: {a} and PyTorch's {b}");
    }
}

fn apply(op: &str, options: &Value, x: &[Tensor]) -> Result<Tensor> {
    let size = |key: &str| options[key].as_u64().unwrap() as usize;
    let number = |key: &str| options[key].as_f64().unwrap();
    let flag = |key: &str| options[key].as_bool().unwrap();
    let relu = || flag("relu");
    let conv = || Conv2dOptions {
        stride: size("stride"),
        padding: size("padding"),
        dilation: size("dilation"),
        groups: size("groups"),
    };
    let pool = || {
        let kernel = sizes(&options["kernel"]);
        Pool2dOptions { kernel: (kernel[0], kernel[1]), stride: size("stride"), padding: size("padding") }
    };
    let indices = |key: &str| {
        let indices: Vec<u32> = sizes(&options[key]).into_iter().map(|index| index as u32).collect();
        Tensor::new(indices, &Device::Cpu)
    };
    match op {
        "conv2d" => ops::conv2d(&x[0], &x[1], conv()),
        "batch_norm" => ops::batch_norm(&x[0], &x[1], &x[2], number("eps"), relu()).map(|normal| normal.output),
        "conv2d_batch_norm" => {
            let options = ops::Conv2dBatchNormOptions { conv: conv(), eps: number("eps"), relu: relu() };
            ops::conv2d_batch_norm(&x[0], &x[1], &x[2], &x[3], Some(&x[4]), options).map(|normal| normal.output)
        }
        "layer_norm" => ops::layer_norm(&x[0], &x[1], number("eps")),
        "rms_norm" => ops::rms_norm(&x[0], &x[1], number("eps")),
        "embedding" => ops::embedding(&x[0], &indices("indices")?),
        "linear" => ops::linear(&x[0], &x[1]),
        "gelu" => ops::gelu(&x[0]),
        "causal_attention" => {
            ops::causal_attention(&x[0], ops::Heads { heads: size("heads"), context: size("context") }, None)
        }
        "scale_shift" => ops::scale_shift(&x[0], &x[1], &x[2], relu()),
        "relu" => ops::relu(&x[0]),
        "add_relu" => ops::add_relu(&x[0], &x[1]),
        "max_pool2d" => ops::max_pool2d(&x[0], pool()),
        "avg_pool2d" => ops::avg_pool2d(&x[0], pool(), flag("count_padding")),
        "cross_entropy" => ops::cross_entropy(&x[0], &indices("labels")?, number("label_smoothing")),
        op => panic!("the fixtures have an op {op}"),
    }
}

#[test]
fn outputs_and_gradients_are_pytorchs() -> Result<()> {
    let cases: Value = serde_json::from_str(include_str!("../fixtures/torch.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 10);
    for (index, case) in cases.iter().enumerate() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let arguments = case["inputs"].as_array().unwrap().iter().map(|input| {
                let tensor = Tensor::from_vec(numbers(&input["values"]), sizes(&input["shape"]), &Device::Cpu)?;
                Ok(Var::from_tensor(&tensor.to_dtype(dtype)?)?.as_tensor().clone())
            });
            let arguments: Vec<Tensor> = arguments.collect::<Result<_>>()?;
            let op = case["op"].as_str().unwrap();
            let name = format!("case {index}, {op} in {dtype:?}");
            let output = apply(op, &case["options"], &arguments)?;
            close(&output, &case["output"], tolerance, &name);
            let dy = Tensor::from_vec(numbers(&case["dy"]), output.shape(), &Device::Cpu)?.to_dtype(dtype)?;
            let grads = (output * dy)?.sum_all()?.backward()?;
            for (which, (argument, expected)) in arguments.iter().zip(case["grads"].as_array().unwrap()).enumerate() {
                close(grads.get(argument).unwrap(), expected, tolerance, &format!("{name}, gradient {which}"));
            }
        }
    }
    Ok(())
}
