//! Convolution, batch normalisation, residual and rectifier in one operation.

use crate::{
    cpu::batch_norm::{Normalized, Statistics, batch_norm},
    cpu::channel::{self, Moments},
    cpu::conv2d::{Convolve, Gradients, OutputGradient, Wanted, conv2d},
    cpu::relu::add_relu,
    cpu::scale_shift::check,
    cpu::tensor::{Reading, fail, gradient, is_half, is_ours, tensor, vec_written, wide, with_float},
    device,
    graph::{differentiable_by_output, plain},
    shape::conv2d::{Conv2d, Geometry},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

const NAME: &str = "conv2d_batch_norm";

/// The options of [`conv2d_batch_norm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNorm {
    /// Of the convolution.
    pub conv: Conv2d,
    /// Added to the variance.
    pub eps: f64,
    /// Whether what is negative becomes 0.
    pub relu: bool,
}

/// `batch_norm(conv2d(x, kernels), weight, bias) + residual`, and 0 where that is negative if `relu`: what residual networks
/// are made of, in one operation. It is [`conv2d`](crate::conv2d()) followed by [`batch_norm`](crate::batch_norm()), an
/// addition and [`relu`](crate::relu()), with fewer passes over the memory: the statistics are taken from each image while
/// it is in the cache, and the gradient by the convolution's output is made there too, and never stored.
///
/// The images `x` are (n, c, h, w), `kernels` (o, c / groups, kh, kw), `weight` and `bias` (o), and `residual` has the output's
/// shape. All are of one dtype.
///
/// # Errors
/// As [`conv2d`](crate::conv2d()), and when other shapes or dtypes do not fit each other, or there is no pixel to take a mean of.
pub fn conv2d_batch_norm(
    x: &Tensor,
    kernels: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    options: ConvNorm,
) -> Result<Normalized> {
    if x.dtype() != kernels.dtype() {
        fail!("conv2d_batch_norm: kernels are of {:?} and must be of {:?}, as x", kernels.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), kernels.shape(), options.conv)?;
    let shape = geometry.output_shape();
    check("conv2d_batch_norm", (&shape, x.dtype()), [("weight", weight), ("bias", bias)])?;
    if let Some(residual) = residual.filter(|r| r.shape() != &shape || r.dtype() != x.dtype()) {
        let (found, dtype) = (residual.shape(), residual.dtype());
        fail!("conv2d_batch_norm: residual {found:?} of {dtype:?} must be {shape:?} of {:?}, as the output", x.dtype());
    }
    if shape.elem_count() == 0 {
        fail!("conv2d_batch_norm: x {:?} has no pixel to take a mean of", x.shape());
    }
    if device::runs(x) {
        let (convolved, ConvNorm { eps, relu, .. }) = (conv2d(x, kernels, options.conv)?, options);
        return device::batch_norm(&convolved, weight, bias, residual, eps, relu);
    }
    if is_half(x) {
        let residual = residual.map(wide).transpose()?;
        let (kernels, weight, bias) = (wide(kernels)?, wide(weight)?, wide(bias)?);
        let normal = conv2d_batch_norm(&wide(x)?, &kernels, &weight, &bias, residual.as_ref(), options)?;
        return normal.narrowed(x.dtype());
    }
    if !is_ours(x) {
        return composed(x, kernels, weight, bias, residual, options);
    }
    ours([x, kernels, weight, bias], residual, geometry, options)
}

/// The same by candle's operations, for other devices and dtypes.
fn composed(
    x: &Tensor,
    kernels: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    ConvNorm { conv, eps, relu: rectified }: ConvNorm,
) -> Result<Normalized> {
    let convolved = conv2d(x, kernels, conv)?;
    let normal = batch_norm(&convolved, weight, bias, eps, rectified && residual.is_none())?;
    let output = match residual {
        None => normal.output,
        Some(residual) if rectified => add_relu(&normal.output, residual)?,
        Some(residual) => (normal.output + residual)?,
    };
    Ok(Normalized { output, ..normal })
}

/// What of a forward pass the gradient needs.
struct Kept {
    geometry: Geometry,
    options: ConvNorm,
    x: Tensor,
    kernels: Tensor,
    weight: Tensor,
    bias: Tensor,
    /// The convolution's output.
    convolved: Tensor,
    statistics: Vec<Statistics>,
    /// Whether there is a gradient by x, kernels, weight, bias and residual.
    wanted: [bool; 5],
}

fn ours(inputs: [&Tensor; 4], residual: Option<&Tensor>, geometry: Geometry, options: ConvNorm) -> Result<Normalized> {
    let [x, kernels, weight, bias] = plain(inputs)?;
    let (convolved, y, statistics) = with_float!(NAME, x.dtype(), T => {
        forward::<T>([&x, &kernels, &weight, &bias], residual, &geometry, options)
    })?;
    let [mean, variance] = Statistics::tensors(&statistics, x.dtype())?;
    let [by_x, by_kernels, by_weight, by_bias] = inputs.map(Tensor::track_op);
    let wanted = [by_x, by_kernels, by_weight, by_bias, residual.is_some_and(Tensor::track_op)];
    let kept = Kept { geometry, options, x, kernels, weight, bias, convolved, statistics, wanted };
    let inputs: Vec<&Tensor> = inputs.into_iter().chain(residual).collect();
    let output = differentiable_by_output(
        NAME,
        &inputs,
        y,
        move |y, dy| with_float!(NAME, dy.dtype(), T => kept.backward::<T>(y, dy)),
    )?;
    Ok(Normalized { output, mean, variance })
}

/// The convolution's output, the output, and the statistics of each channel.
fn forward<T: Convolve>(
    [x, kernels, weight, bias]: [&Tensor; 4],
    residual: Option<&Tensor>,
    g: &Geometry,
    options: ConvNorm,
) -> Result<(Tensor, Tensor, Vec<Statistics>)> {
    let residual = residual.map(|residual| plain([residual])).transpose()?;
    let [x_read, kernels_read, weight_read, bias_read] = [x, kernels, weight, bias].map(Reading::new);
    let residual_read = residual.as_ref().map(|[residual]| Reading::new(residual));
    let (weights, biases) = (weight_read.slice::<T>()?, bias_read.slice::<T>()?);
    let residuals = residual_read.as_ref().map(Reading::slice::<T>).transpose()?;
    let (channels, pixels) = (g.all_out_channels(), g.out_pixels());
    let moments = |_: usize, section: &mut [T]| section.chunks_exact(pixels).map(Moments::of).collect::<Vec<_>>();
    let (convolved, moments) = T::forward(g, x_read.slice()?, kernels_read.slice()?, moments);
    // Of all channels of all images.
    let moments = moments.concat();
    let of_channel = |channel| moments.iter().skip(channel).step_by(channels).copied().reduce(Moments::and);
    let statistics: Vec<Statistics> =
        (0..channels).map(|channel| of_channel(channel).unwrap_or_default().into()).collect();
    let affines: Vec<_> = (0..channels)
        .map(|channel| statistics[channel].affine(options.eps, weights[channel], biases[channel]))
        .collect();
    let size = channels * pixels;
    let write = |y: &mut [MaybeUninit<T>]| {
        let images = y.par_chunks_mut(size).zip(convolved.par_chunks(size)).enumerate();
        images.for_each(|(image, (y, z))| {
            let residual = residuals.map(|residual| &residual[image * size..][..size]);
            let planes = y.chunks_exact_mut(pixels).zip(z.chunks_exact(pixels));
            for (channel, (y, z)) in planes.enumerate() {
                match residual {
                    None => affines[channel].apply(options.relu, z, y),
                    Some(residual) => {
                        affines[channel].apply_and_add(options.relu, z, &residual[channel * pixels..][..pixels], y);
                    }
                }
            }
        });
    };
    // SAFETY: every plane of every image is written.
    let y = unsafe { vec_written(convolved.len(), write) };
    Ok((tensor(convolved, g.output_shape())?, tensor(y, g.output_shape())?, statistics))
}

impl Kept {
    fn backward<T: Convolve>(&self, y: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let Self { geometry: g, options: ConvNorm { eps, relu, .. }, statistics, .. } = self;
        let (eps, relu, [by_x, by_kernels, by_weight, by_bias, by_residual]) = (*eps, *relu, self.wanted);
        let [x, kernels] = [&self.x, &self.kernels].map(Reading::new);
        let [weight, bias, convolved, y_read, dy_read] =
            [&self.weight, &self.bias, &self.convolved, y, dy].map(Reading::new);
        let (weights, biases) = (weight.slice::<T>()?, bias.slice::<T>()?);
        let (zs, ys, dys) = (convolved.slice::<T>()?, y_read.slice::<T>()?, dy_read.slice::<T>()?);
        let (channels, size) = (g.all_out_channels(), g.out_pixels());
        let affines: Vec<_> = (0..channels).map(|c| statistics[c].affine(eps, weights[c], biases[c])).collect();

        let plane = |index: usize| index * size..(index + 1) * size;
        // The gradient that passes the rectifier, where it is needed as the residual's, and its sums in each image.
        let mut passed = by_residual.then(|| Box::new_uninit_slice(dys.len()));
        let images: Vec<Option<&mut [MaybeUninit<T>]>> = match &mut passed {
            Some(passed) => passed.chunks_mut(channels * size).map(Some).collect(),
            None => (0..g.images).map(|_| None).collect(),
        };
        let sums: Vec<Vec<[f64; 2]>> = images
            .into_par_iter()
            .enumerate()
            .map(|(image, mut passed)| {
                let of_channel = |channel: usize| {
                    let plane = plane(image * channels + channel);
                    let (z, y, dy) = (&zs[plane.clone()], &ys[plane.clone()], &dys[plane]);
                    let sums = channel::masked_sums(relu, affines[channel].center, z, y, dy);
                    if let Some(passed) = &mut passed {
                        channel::masked(relu, y, dy, &mut passed[channel * size..][..size]);
                    }
                    sums
                };
                (0..channels).map(of_channel).collect()
            })
            .collect();
        // SAFETY: every plane of every image was written.
        let passed = passed.map(|passed| unsafe { passed.assume_init() }.into_vec());
        let sums = sums.into_iter().reduce(|mut sums, image| {
            for (sums, image) in sums.iter_mut().zip(image) {
                sums[0] += image[0];
                sums[1] += image[1];
            }
            sums
        });
        let sums = sums.unwrap_or_default();

        let pixels = (size * g.images) as f64;
        let convolved_gradient = |section: usize, dz: &mut [T]| {
            for (index, dz) in (section * g.out_channels..).zip(dz.chunks_exact_mut(size)) {
                let (channel, plane) = (index % channels, plane(index));
                let inverse = statistics[channel].inverse_deviation(eps);
                let [sum, product] = sums[channel];
                let means = [T::narrow(sum / pixels), T::narrow(product * inverse * inverse / pixels)];
                let z = &zs[plane.clone()];
                match &passed {
                    Some(passed) => affines[channel].centered_gradient(false, means, z, z, &passed[plane], dz),
                    None => affines[channel].centered_gradient(relu, means, z, &ys[plane.clone()], &dys[plane], dz),
                }
            }
        };
        let gradients = match (Wanted { input: by_x, weight: by_kernels }) {
            Wanted { input: false, weight: false } => Gradients { input: None, weight: None },
            wanted => T::backward(g, x.slice()?, kernels.slice()?, &OutputGradient::Made(&convolved_gradient), wanted),
        };
        let by = |wanted: bool, of: fn(&Statistics, f64, [f64; 2]) -> f64| -> Option<Vec<T>> {
            let all = statistics.iter().zip(&sums);
            wanted.then(|| all.map(|(statistics, &sums)| T::narrow(of(statistics, eps, sums))).collect())
        };
        let by_weight = by(by_weight, |statistics, eps, [_, product]| product * statistics.inverse_deviation(eps));
        let by_bias = by(by_bias, |_, _, [sum, _]| sum);
        Ok(vec![
            gradient(gradients.input, &self.x)?,
            gradient(gradients.weight, &self.kernels)?,
            gradient(by_weight, &self.weight)?,
            gradient(by_bias, &self.bias)?,
            gradient(passed, y)?,
        ])
    }
}
