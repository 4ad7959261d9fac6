//! Bad arguments: one line that names the thing, the value and what is allowed.

use candle_core::{DType, Device, Result, Tensor};
use ops::{Conv2dOptions, Pool2dOptions};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn labels(labels: &[u32]) -> Tensor {
    Tensor::new(labels, &Device::Cpu).unwrap()
}

#[test]
fn errors_name_what_is_wrong() {
    let wide = |shape: &[usize]| zeros(shape).to_dtype(DType::F64).unwrap();
    let conv = |x: &[usize], weight: &[usize], stride, padding| {
        ops::conv2d(&zeros(x), &zeros(weight), Conv2dOptions { stride, padding, ..Default::default() })
    };
    let grouped = |groups, dilation| {
        ops::conv2d(
            &zeros(&[1, 4, 8, 8]),
            &zeros(&[3, 2, 3, 3]),
            Conv2dOptions { groups, dilation, ..Default::default() },
        )
    };
    let max_pool =
        |x: &[usize], kernel, stride, padding| ops::max_pool2d(&zeros(x), Pool2dOptions { kernel, stride, padding });
    let norm = |x: &[usize], weight: Tensor, bias: Tensor| {
        ops::batch_norm(&zeros(x), &weight, &bias, 1e-5, false).map(|normal| normal.output)
    };
    let conv_norm = |x: &[usize], kernels: &[usize], channels: &[usize], residual: Option<&[usize]>| {
        let options = ops::Conv2dBatchNormOptions {
            conv: Conv2dOptions { padding: 1, ..Default::default() },
            eps: 1e-5,
            relu: true,
        };
        let (channels, residual) = (zeros(channels), residual.map(zeros));
        ops::conv2d_batch_norm(&zeros(x), &zeros(kernels), &channels, &channels, residual.as_ref(), options)
            .map(|normal| normal.output)
    };
    let cases: Vec<(Result<Tensor>, &[&str])> = vec![
        (conv(&[3, 8, 8], &[4, 3, 3, 3], 1, 1), &["conv2d", "[3, 8, 8]", "(n, c, h, w)"]),
        (conv(&[1, 3, 8, 8], &[4, 3, 3], 1, 1), &["conv2d", "[4, 3, 3]", "(o, c / groups, kh, kw)"]),
        (conv(&[1, 3, 8, 8], &[4, 2, 3, 3], 1, 1), &["conv2d", "3 channels", "for 2"]),
        (conv(&[1, 3, 8, 8], &[4, 3, 3, 3], 0, 1), &["conv2d", "stride is 0", "at least 1"]),
        (conv(&[1, 3, 2, 2], &[4, 3, 5, 5], 1, 1), &["conv2d", "[4, 3, 5, 5]", "[1, 3, 2, 2]", "padding 1"]),
        (conv(&[1, 3, 2, 0], &[4, 3, 1, 1], 1, 1), &["conv2d", "[1, 3, 2, 0]", "size of 0"]),
        (ops::conv2d(&zeros(&[1, 3, 8, 8]), &wide(&[4, 3, 3, 3]), Conv2dOptions::default()), &["conv2d", "F64", "F32"]),
        (grouped(2, 0), &["conv2d", "dilation is 0", "at least 1"]),
        (grouped(0, 1), &["conv2d", "groups is 0", "at least 1"]),
        (grouped(2, 1), &["conv2d", "[3, 2, 3, 3]", "3 output channels", "2 groups"]),
        (grouped(1, 1), &["conv2d", "[1, 4, 8, 8]", "4 channels", "for 2"]),
        (
            ops::conv2d(
                &zeros(&[1, 2, 8, 8]),
                &zeros(&[3, 2, 3, 3]),
                Conv2dOptions { dilation: 4, ..Default::default() },
            ),
            &["conv2d", "dilation 4", "larger", "[1, 2, 8, 8]"],
        ),
        (norm(&[2, 3], zeros(&[3]), zeros(&[3])), &["batch_norm", "[2, 3]", "(n, c, h, w)"]),
        (norm(&[2, 3, 4, 4], zeros(&[4]), zeros(&[3])), &["batch_norm", "weight [4]", "[3]"]),
        (norm(&[2, 3, 4, 4], zeros(&[3]), wide(&[3])), &["batch_norm", "bias", "F64", "F32"]),
        (norm(&[0, 3, 4, 4], zeros(&[3]), zeros(&[3])), &["batch_norm", "[0, 3, 4, 4]", "mean"]),
        (conv_norm(&[1, 3, 8, 8], &[4, 2, 3, 3], &[4], None), &["conv2d", "3 channels", "for 2"]),
        (conv_norm(&[1, 3, 8, 8], &[4, 3, 3, 3], &[3], None), &["conv2d_batch_norm", "weight [3]", "[4]"]),
        (conv_norm(&[0, 3, 8, 8], &[4, 3, 3, 3], &[4], None), &["conv2d_batch_norm", "[0, 3, 8, 8]", "mean"]),
        (
            conv_norm(&[1, 3, 8, 8], &[4, 3, 3, 3], &[4], Some(&[1, 4, 8, 7])),
            &["conv2d_batch_norm", "residual [1, 4, 8, 7]", "[1, 4, 8, 8]"],
        ),
        (
            ops::scale_shift(&zeros(&[1, 2, 1, 1]), &zeros(&[2]), &zeros(&[1]), true),
            &["scale_shift", "shift [1]", "[2]"],
        ),
        (ops::add_relu(&zeros(&[2, 3]), &zeros(&[3, 2])), &["add_relu", "[2, 3]", "[3, 2]", "same shape"]),
        (ops::layer_norm(&zeros(&[2, 3]), &zeros(&[2]), 1e-5), &["layer_norm", "weight [2]", "[2, 3]"]),
        (ops::linear(&zeros(&[2, 3]), &zeros(&[4, 2])), &["linear", "[2, 3]", "[4, 2]", "(outputs, inputs)"]),
        (
            ops::causal_attention(&zeros(&[6, 6]), ops::Heads { heads: 2, context: 4 }, None),
            &["causal_attention", "[6, 6]", "4 rows", "3 x 2"],
        ),
        (
            ops::DropoutMasks::new(1.0, [0; 32]).and_then(|masks| ops::dropout(&zeros(&[1]), masks)),
            &["dropout", "rate is 1", "below 1"],
        ),
        (max_pool(&[1, 2, 1, 4], (2, 2), 2, 0), &["max_pool2d", "[1, 2, 1, 4]", "2x2", "padding 0"]),
        (max_pool(&[2, 1, 4], (2, 2), 2, 0), &["max_pool2d", "[2, 1, 4]", "(n, c, h, w)"]),
        (max_pool(&[1, 2, 4, 4], (2, 0), 2, 0), &["max_pool2d", "2x0", "at least 1"]),
        (max_pool(&[1, 2, 4, 4], (2, 2), 0, 0), &["max_pool2d", "stride 0", "at least 1"]),
        (max_pool(&[1, 2, 4, 4], (3, 4), 1, 2), &["max_pool2d", "padding 2", "half", "3x4"]),
        (
            ops::avg_pool2d(&zeros(&[1, 2, 3, 2]), Pool2dOptions::square(3), true),
            &["avg_pool2d", "3x3", "larger", "[1, 2, 3, 2]"],
        ),
        (ops::shortcut(&zeros(&[1, 2, 3]), 2, 4), &["shortcut", "[1, 2, 3]", "(n, c, h, w)"]),
        (ops::shortcut(&zeros(&[1, 2, 3, 3]), 0, 4), &["shortcut", "stride 0", "at least 1"]),
        (ops::shortcut(&zeros(&[1, 2, 0, 3]), 1, 4), &["shortcut", "[1, 2, 0, 3]", "a pixel"]),
        (ops::shortcut(&zeros(&[1, 2, 3, 3]), 2, 1), &["shortcut", "channels is 1", "[1, 2, 3, 3]"]),
        (ops::rms_norm(&zeros(&[2, 3]), &zeros(&[2]), 1e-5), &["rms_norm", "weight [2]", "[2, 3]"]),
        (ops::rms_norm(&zeros(&[2, 3]), &wide(&[3]), 1e-5), &["rms_norm", "F64", "F32"]),
        (ops::embedding(&zeros(&[5, 2]), &labels(&[0, 1, 5])), &["embedding", "index 5", "place 2", "5 rows"]),
        (ops::embedding(&zeros(&[5]), &labels(&[0])), &["embedding", "[5]", "(rows, d)"]),
        (ops::embedding(&zeros(&[5, 0]), &labels(&[0])), &["embedding", "[5, 0]", "columns"]),
        (ops::embedding(&zeros(&[5, 2]), &zeros(&[1])), &["embedding", "F32", "U32"]),
        (
            ops::cross_entropy(&zeros(&[1, 3]), &labels(&[0]), 1.5),
            &["cross_entropy", "label_smoothing is 1.5", "at most 1"],
        ),
        (
            ops::cross_entropy(&zeros(&[2, 3]), &labels(&[0, 3]), 0.0),
            &["cross_entropy", "label 3", "row 1", "3 classes"],
        ),
        (ops::cross_entropy(&zeros(&[2, 3]), &labels(&[0]), 0.0), &["cross_entropy", "[2, 3]", "[1]"]),
        (ops::cross_entropy(&zeros(&[2, 3]), &zeros(&[2]), 0.0), &["cross_entropy", "F32", "U32"]),
        (ops::cross_entropy(&zeros(&[6]), &labels(&[0]), 0.0), &["cross_entropy", "[6]", "(n, classes)"]),
    ];
    for (result, parts) in cases {
        let message = result.expect_err(parts[0]).to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "`{message}` does not name `{part}`");
        }
    }
}
