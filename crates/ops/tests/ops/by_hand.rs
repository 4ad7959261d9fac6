//! Corners, by hand.

use crate::cases::values;
use candle_core::{DType, Device, Result, Tensor, Var};

/// A channel with the values 1, 3, 5, 7 (mean 4, variance 5) and one with 0, 0, 0, 8 (2, 12).
#[test]
fn batch_norm_returns_the_statistics_of_the_batch() -> Result<()> {
    let x = Tensor::new(&[1.0f32, 3.0, 0.0, 0.0, 5.0, 7.0, 0.0, 8.0], &Device::Cpu)?.reshape((2, 2, 1, 2))?;
    let x = Var::from_tensor(&x)?;
    let ones = Tensor::ones(2, DType::F32, &Device::Cpu)?;
    let normal = ops::batch_norm(&x, &ones, &ones, 1e-5, false)?;
    assert_eq!((values(&normal.mean), values(&normal.variance)), (vec![4.0, 2.0], vec![5.0, 12.0]));
    assert!(!normal.mean.track_op() && !normal.variance.track_op() && normal.output.track_op());
    Ok(())
}

/// 1e4 + k/8 is exact in f32, and its square is not: the variance of 0, 1/8, .., 7/8 is 63/768.
#[test]
fn a_large_mean_does_not_cancel_the_variance() -> Result<()> {
    let x: Vec<f32> = (0..800).map(|k| 1e4 + (k % 8) as f32 / 8.0).collect();
    let x = Tensor::from_vec(x, (4, 1, 10, 20), &Device::Cpu)?;
    let (one, zero) = (Tensor::ones(1, DType::F32, &Device::Cpu)?, Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    let normal = ops::batch_norm(&x, &one, &zero, 0.0, false)?;
    let expected = 63.0 / 768.0;
    assert!((values(&normal.variance)[0] - expected).abs() < 1e-8);
    assert!((values(&normal.output)[0] + 0.4375 / f64::sqrt(expected)).abs() < 2e-3, "{}", values(&normal.output)[0]);
    Ok(())
}

const CONV_NORM: ops::ConvNorm = ops::ConvNorm { stride: 1, padding: 0, eps: 1e-5, relu: true };

#[test]
fn nan_passes_through_everything() -> Result<()> {
    let nan = |shape: &[usize]| Tensor::full(f32::NAN, shape, &Device::Cpu);
    let (images, channel) = (nan(&[1, 1, 2, 2])?, Tensor::ones(1, DType::F32, &Device::Cpu)?);
    let one_by_one = Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu)?;
    let outputs = [
        ops::conv2d(&images, &one_by_one, 1, 0)?,
        ops::conv2d(&images, &Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu)?, 1, 0)?,
        ops::batch_norm(&images, &channel, &channel, 1e-5, true)?.output,
        ops::conv2d_batch_norm(&images, &one_by_one, &channel, &channel, Some(&images), CONV_NORM)?.output,
        ops::scale_shift(&images, &channel, &channel, true)?,
        ops::relu(&images)?,
        ops::add_relu(&images, &images)?,
        ops::max_pool2(&images)?,
        ops::cross_entropy(&nan(&[1, 3])?, &Tensor::new(&[1u32], &Device::Cpu)?)?,
    ];
    for (index, output) in outputs.iter().enumerate() {
        assert!(values(output).iter().all(|x| x.is_nan()), "output {index} is {output}");
    }
    Ok(())
}

/// What stands beside an image must not leak into it, whatever it is: here infinity in the next image and row.
#[test]
fn a_convolution_reads_its_own_image_and_row() -> Result<()> {
    let mut x = vec![1.0f32; 2 * 5 * 5];
    x[4] = f32::INFINITY; // the end of the first row
    x[25..].fill(f32::NAN);
    let x = Tensor::from_vec(x, (2, 1, 5, 5), &Device::Cpu)?;
    let y = values(&ops::conv2d(&x, &Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu)?, 1, 1)?);
    let finite: Vec<usize> = (0..25).filter(|&i| y[i].is_finite()).collect();
    let expected: Vec<usize> = (0..25).filter(|i| !(i / 5 < 2 && i % 5 >= 3)).collect();
    assert_eq!(finite, expected);
    Ok(())
}

/// By candle's own operations where the ops do not compute themselves, here in f16.
#[test]
fn other_dtypes_go_to_candle() -> Result<()> {
    let noise = |shape: &[usize], seed| crate::cases::tensor(&crate::naive::Array::noise(shape, seed), DType::F16);
    let (x, weight, channel) = (noise(&[2, 3, 6, 5], 1), noise(&[4, 3, 3, 3], 2), noise(&[3], 3));
    let wide = |t: &Tensor| t.to_dtype(DType::F32);
    let four = noise(&[4], 4);
    let residual = noise(&[2, 4, 4, 3], 5);
    let norm = |[x, weight, four, residual]: [&Tensor; 4]| -> Result<Tensor> {
        Ok(ops::conv2d_batch_norm(x, weight, four, four, Some(residual), CONV_NORM)?.output)
    };
    let pairs = [
        (
            norm([&x, &weight, &four, &residual])?,
            norm([&wide(&x)?, &wide(&weight)?, &wide(&four)?, &wide(&residual)?])?,
        ),
        (ops::conv2d(&x, &weight, 2, 1)?, ops::conv2d(&wide(&x)?, &wide(&weight)?, 2, 1)?),
        (
            ops::batch_norm(&x, &channel, &channel, 1e-3, true)?.output,
            ops::batch_norm(&wide(&x)?, &wide(&channel)?, &wide(&channel)?, 1e-3, true)?.output,
        ),
        (
            ops::scale_shift(&x, &channel, &channel, true)?,
            ops::scale_shift(&wide(&x)?, &wide(&channel)?, &wide(&channel)?, true)?,
        ),
        (ops::relu(&x)?, ops::relu(&wide(&x)?)?),
        (ops::add_relu(&x, &x)?, ops::add_relu(&wide(&x)?, &wide(&x)?)?),
        (ops::max_pool2(&x)?, ops::max_pool2(&wide(&x)?)?),
    ];
    for (index, (narrow, wide)) in pairs.iter().enumerate() {
        assert_eq!((narrow.dtype(), narrow.dims()), (DType::F16, wide.dims()));
        for (a, b) in values(narrow).iter().zip(values(wide)) {
            assert!((a - b).abs() < 0.05, "output {index}: {a} is not {b}");
        }
    }
    Ok(())
}

/// Each value is kept and divided by 0.75, or dropped, and its gradient with it; another seed drops others.
#[test]
fn dropout_drops_a_value_and_its_gradient() -> Result<()> {
    let masks = |seed| ops::Masks::new(0.25, [seed; 32]);
    for dtype in [DType::F32, DType::F64] {
        let x = Var::from_tensor(&Tensor::ones((10, 1000), dtype, &Device::Cpu)?)?;
        let y = ops::dropout(&x, masks(1)?)?;
        let kept = values(&y).iter().filter(|&&y| y > 0.0).count();
        // Five standard deviations of a binomial of 10,000 draws.
        assert!(kept.abs_diff(7500) < 220, "{kept}");
        assert!(values(&y).iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-6));
        let grads = y.sum_all()?.backward()?;
        assert_eq!(values(grads.get(&x).unwrap()), values(&y));
        assert_ne!(values(&ops::dropout(&x, masks(2)?)?), values(&y));
    }
    Ok(())
}
