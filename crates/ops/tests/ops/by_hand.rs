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

const CONV: ops::Conv2dOptions = ops::Conv2dOptions { stride: 1, padding: 0, dilation: 1, groups: 1 };
const CONV_NORM: ops::Conv2dBatchNormOptions = ops::Conv2dBatchNormOptions { conv: CONV, eps: 1e-5, relu: true };

#[test]
fn nan_passes_through_everything() -> Result<()> {
    let nan = |shape: &[usize]| Tensor::full(f32::NAN, shape, &Device::Cpu);
    let (images, channel) = (nan(&[1, 1, 2, 2])?, Tensor::ones(1, DType::F32, &Device::Cpu)?);
    let one_by_one = Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu)?;
    let outputs = [
        ops::conv2d(&images, &one_by_one, CONV)?,
        ops::conv2d(&images, &Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu)?, CONV)?,
        ops::batch_norm(&images, &channel, &channel, 1e-5, true)?.output,
        ops::conv2d_batch_norm(&images, &one_by_one, &channel, &channel, Some(&images), CONV_NORM)?.output,
        ops::scale_shift(&images, &channel, &channel, true)?,
        ops::relu(&images)?,
        ops::add_relu(&images, &images)?,
        ops::max_pool2d(&images, ops::Pool2dOptions::square(2))?,
        ops::max_pool2d(&images, ops::Pool2dOptions { kernel: (2, 2), stride: 1, padding: 1 })?,
        ops::avg_pool2d(&images, ops::Pool2dOptions::whole(2, 2), true)?,
        ops::rms_norm(&nan(&[1, 3])?, &nan(&[3])?, 1e-5)?,
        ops::cross_entropy(&nan(&[1, 3])?, &Tensor::new(&[1u32], &Device::Cpu)?, 0.0)?,
        ops::cross_entropy(&nan(&[1, 3])?, &Tensor::new(&[1u32], &Device::Cpu)?, 0.1)?,
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
    let kernel = Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu)?;
    let y = values(&ops::conv2d(&x, &kernel, ops::Conv2dOptions { padding: 1, ..CONV })?);
    let finite: Vec<usize> = (0..25).filter(|&i| y[i].is_finite()).collect();
    let expected: Vec<usize> = (0..25).filter(|i| !(i / 5 < 2 && i % 5 >= 3)).collect();
    assert_eq!(finite, expected);
    Ok(())
}

/// Infinity in one group, and what is not a number in another image.
#[test]
fn a_group_reads_its_own_channels() -> Result<()> {
    for groups in [2, 4] {
        let mut x = vec![1.0f32; 2 * 4 * 9];
        x[2 * 9..3 * 9].fill(f32::INFINITY);
        x[4 * 9..].fill(f32::NAN);
        let x = Tensor::from_vec(x, (2, 4, 3, 3), &Device::Cpu)?;
        let kernel = Tensor::ones((4, 4 / groups, 3, 3), DType::F32, &Device::Cpu)?;
        let y = values(&ops::conv2d(&x, &kernel, ops::Conv2dOptions { padding: 1, groups, ..CONV })?);
        let finite: Vec<usize> = (0..8).filter(|&plane| y[plane * 9..][..9].iter().all(|y| y.is_finite())).collect();
        assert_eq!(finite, if groups == 2 { vec![0, 1] } else { vec![0, 1, 3] });
    }
    Ok(())
}

/// Each value is kept and divided by 0.75, or dropped, and its gradient with it; another seed drops others.
#[test]
fn dropout_drops_a_value_and_its_gradient() -> Result<()> {
    let masks = |seed| ops::DropoutMasks::new(0.25, [seed; 32]);
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

/// -infinity is a maximum too, and the gradient of a window of nothing else goes to its first pixel.
#[test]
fn windows_of_minus_infinity_have_a_maximum() -> Result<()> {
    let x = Var::from_tensor(&Tensor::full(f32::NEG_INFINITY, (1, 1, 4, 4), &Device::Cpu)?)?;
    let y = ops::max_pool2d(&x, ops::Pool2dOptions { kernel: (3, 3), stride: 2, padding: 1 })?;
    assert_eq!(values(&y), [f64::NEG_INFINITY; 4]);
    let grads = y.sum_all()?.backward()?;
    let first: Vec<f64> = (0..16).map(|i| if [0, 1, 4, 5].contains(&i) { 1.0 } else { 0.0 }).collect();
    assert_eq!(values(grads.get(&x).unwrap()), first);
    Ok(())
}
