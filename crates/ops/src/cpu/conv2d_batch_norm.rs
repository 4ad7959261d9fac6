//! Convolution, batch normalisation, residual and rectifier in one operation: the passes.

use crate::{
    cpu::{
        batch_norm::Statistics,
        channel::{self, Moments},
        conv2d::{
            Convolve,
            gradient::{Gradients, OutputGradient, Wanted},
        },
        number::with_float,
        tensor::{Reading, gradient, tensor, vec_written},
    },
    shape::{
        batch_norm::BatchNormOutput,
        conv2d::{Conv2dBatchNormOptions, Geometry},
        gradients::BackwardByOutput,
    },
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

const NAME: &str = "conv2d_batch_norm";

/// What of a forward pass the gradient needs.
struct Kept {
    geometry: Geometry,
    options: Conv2dBatchNormOptions,
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

/// The value of [`crate::conv2d_batch_norm()`], and those of its gradients that are wanted.
pub(crate) fn conv2d_batch_norm(
    [x, kernels, weight, bias]: [Tensor; 4],
    residual: Option<&Tensor>,
    geometry: Geometry,
    options: Conv2dBatchNormOptions,
    wanted: [bool; 5],
) -> Result<(BatchNormOutput, impl BackwardByOutput + use<>)> {
    let (convolved, y, statistics) = with_float!(NAME, x.dtype(), T => {
        forward::<T>([&x, &kernels, &weight, &bias], residual, &geometry, options)
    })?;
    let [mean, variance] = Statistics::tensors(&statistics, x.dtype())?;
    let kept = Kept { geometry, options, x, kernels, weight, bias, convolved, statistics, wanted };
    let backward = move |y: &Tensor, dy: &Tensor| with_float!(NAME, dy.dtype(), T => kept.backward::<T>(y, dy));
    Ok((BatchNormOutput { output: y, mean, variance }, backward))
}

/// The convolution's output, the output, and the statistics of each channel.
fn forward<T: Convolve>(
    [x, kernels, weight, bias]: [&Tensor; 4],
    residual: Option<&Tensor>,
    g: &Geometry,
    options: Conv2dBatchNormOptions,
) -> Result<(Tensor, Tensor, Vec<Statistics>)> {
    let [x_read, kernels_read, weight_read, bias_read] = [x, kernels, weight, bias].map(Reading::new);
    let residual_read = residual.map(Reading::new);
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
        let Self { geometry: g, options: Conv2dBatchNormOptions { eps, relu, .. }, statistics, .. } = self;
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
