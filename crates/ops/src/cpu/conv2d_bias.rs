//! Convolution, bias and rectifier in one operation: the passes.

use crate::{
    cpu::{
        channel,
        conv2d::{
            Convolve,
            gradient::{Gradients, OutputGradient, Wanted},
        },
        number::{Float, with_float},
        tensor::{Reading, gradient, tensor},
    },
    shape::{conv2d::Geometry, gradients::BackwardByOutput},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::sync::OnceLock;

const NAME: &str = "conv2d_bias";

/// The value of [`crate::conv2d_bias()`], and those of its gradients that are wanted.
pub(crate) fn conv2d_bias(
    [x, weight, bias]: [Tensor; 3],
    g: Geometry,
    relu: bool,
    [input, by_weight, by_bias]: [bool; 3],
) -> Result<(Tensor, impl BackwardByOutput)> {
    let wanted = Wanted { input, weight: by_weight };
    let y = with_float!(NAME, x.dtype(), T => {
        let [x_read, weight_read, bias_read] = [&x, &weight, &bias].map(Reading::new);
        let biases = bias_read.slice::<T>()?;
        let add = |section: usize, y: &mut [T]| {
            let biases = &biases[section % g.groups * g.out_channels..];
            for (plane, &bias) in y.chunks_exact_mut(g.out_pixels()).zip(biases) {
                channel::add_bias(relu, bias, plane);
            }
        };
        tensor::<T>(T::forward(&g, x_read.slice()?, weight_read.slice()?, add).0, g.output_shape())
    })?;
    let gradients = move |y: &Tensor, dy: &Tensor| {
        with_float!(NAME, dy.dtype(), T => {
            let [x_read, weight_read, y_read, dy_read] = [&x, &weight, y, dy].map(Reading::new);
            let (ys, dys) = (y_read.slice::<T>()?, dy_read.slice::<T>()?);
            // Of each channel of each section, taken while the gradient passes the rectifier.
            let sums: Vec<OnceLock<Vec<f64>>> = (0..g.sections()).map(|_| OnceLock::new()).collect();
            let pass = |section: usize, passed: &mut [T]| {
                let place = section * g.out_size()..(section + 1) * g.out_size();
                let planes = ys[place.clone()].chunks_exact(g.out_pixels()).zip(dys[place].chunks_exact(g.out_pixels()));
                let planes = planes.zip(passed.chunks_exact_mut(g.out_pixels()));
                let of_section = planes.map(|((y, dy), passed)| channel::masked_sum(relu, y, dy, passed)).collect();
                // A second time would give the same.
                let _ = sums[section].set(of_section);
            };
            let gradients = if wanted.input || wanted.weight {
                let dy = OutputGradient::Made(&pass);
                <T as Convolve>::backward(&g, x_read.slice()?, weight_read.slice()?, &dy, wanted)
            } else {
                let buffer = || vec![T::narrow(0.0); g.out_size()];
                (0..g.sections()).into_par_iter().for_each_init(buffer, |passed, section| pass(section, passed));
                Gradients { input: None, weight: None }
            };
            let mut sum_of_channels = vec![0.0; g.all_out_channels()];
            for (section, sums) in sums.iter().enumerate() {
                let first = section % g.groups * g.out_channels;
                for (of_channel, sum) in sum_of_channels[first..].iter_mut().zip(sums.get().into_iter().flatten()) {
                    *of_channel += sum;
                }
            }
            let by_bias = by_bias.then(|| sum_of_channels.into_iter().map(<T as Float>::narrow).collect());
            Ok(vec![
                gradient(gradients.input, &x)?,
                gradient(gradients.weight, &weight)?,
                gradient::<T>(by_bias, &bias)?,
            ])
        })
    };
    Ok((y, gradients))
}
