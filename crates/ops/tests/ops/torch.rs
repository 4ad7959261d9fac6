//! Against PyTorch's values: `tests/fixtures/generate.py`.

use crate::cases::values;
use candle_core::{DType, Device, Result, Tensor, Var};
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
    let relu = || options["relu"].as_bool().unwrap();
    match op {
        "conv2d" => ops::conv2d(&x[0], &x[1], size("stride"), size("padding")),
        "batch_norm" => {
            ops::batch_norm(&x[0], &x[1], &x[2], options["eps"].as_f64().unwrap(), relu()).map(|normal| normal.output)
        }
        "conv2d_batch_norm" => {
            let (stride, padding) = (size("stride"), size("padding"));
            let options = ops::ConvNorm { stride, padding, eps: options["eps"].as_f64().unwrap(), relu: relu() };
            ops::conv2d_batch_norm(&x[0], &x[1], &x[2], &x[3], Some(&x[4]), options).map(|normal| normal.output)
        }
        "layer_norm" => ops::layer_norm(&x[0], &x[1], options["eps"].as_f64().unwrap()),
        "linear" => ops::linear(&x[0], &x[1]),
        "gelu" => ops::gelu(&x[0]),
        "causal_attention" => {
            ops::causal_attention(&x[0], ops::Heads { heads: size("heads"), context: size("context") }, None)
        }
        "scale_shift" => ops::scale_shift(&x[0], &x[1], &x[2], relu()),
        "relu" => ops::relu(&x[0]),
        "add_relu" => ops::add_relu(&x[0], &x[1]),
        "max_pool2" => ops::max_pool2(&x[0]),
        "cross_entropy" => {
            let labels: Vec<u32> = sizes(&options["labels"]).into_iter().map(|label| label as u32).collect();
            ops::cross_entropy(&x[0], &Tensor::new(labels, &Device::Cpu)?)
        }
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
