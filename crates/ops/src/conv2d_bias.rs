//! Convolution, bias and rectifier in one operation.

use crate::{
    channel,
    conv2d::{Conv2d, Convolve, Geometry, Gradients, OutputGradient, Wanted, conv2d},
    device,
    host::{Float, Reading, fail, gradient, is_half, is_ours, slice, wide, with_float},
    scale_shift::{check, scale_shift},
};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use rayon::prelude::*;
use std::sync::OnceLock;

/// `conv2d(x, weight) + bias`, and 0 where that is negative if `relu`, in one operation: [`conv2d`](crate::conv2d()) and
/// [`relu`](crate::relu()) with fewer passes over the memory. The images `x` are (n, c, h, w), `weight` (o, c / groups, kh, kw)
/// and `bias` (o), of one dtype.
///
/// # Errors
/// As [`conv2d`](crate::conv2d()), and when `bias` is not (o) or of another dtype.
pub fn conv2d_bias(x: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool, options: Conv2d) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d_bias: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), weight.shape(), options)?;
    check("conv2d_bias", (&geometry.output_shape(), x.dtype()), [("bias", bias)])?;
    if device::runs(x) {
        return device::bias(&conv2d(x, weight, options)?, bias, relu);
    }
    if is_half(x) {
        return conv2d_bias(&wide(x)?, &wide(weight)?, &wide(bias)?, relu, options)?.to_dtype(x.dtype());
    }
    if !is_ours(x) {
        return scale_shift(&conv2d(x, weight, options)?, &bias.ones_like()?, bias, relu);
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Op { geometry, relu })
}

struct Op {
    geometry: Geometry,
    relu: bool,
}

impl Op {
    fn forward<T: Convolve>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let g = &self.geometry;
        let add = |section: usize, y: &mut [T]| {
            let biases = &bias[section % g.groups * g.out_channels..];
            for (plane, &bias) in y.chunks_exact_mut(g.out_pixels()).zip(biases) {
                channel::add_bias(self.relu, bias, plane);
            }
        };
        T::forward(g, x, weight, add).0
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "conv2d_bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_float!(self.name(), x.dtype(), T => {
            let y = self.forward::<T>(slice(x, xl)?, slice(weight, wl)?, slice(bias, bl)?);
            Ok((T::to_cpu_storage_owned(y), self.geometry.output_shape()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (g, relu) = (&self.geometry, self.relu);
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let [x_read, weight_read, y_read, dy_read] = [x, weight, y, &dy].map(Reading::new);
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
            let wanted = Wanted { input: x.track_op(), weight: weight.track_op() };
            let gradients = if wanted.input || wanted.weight {
                let dy = OutputGradient::Made(&pass);
                T::backward(g, x_read.slice()?, weight_read.slice()?, &dy, wanted)
            } else {
                let buffer = || vec![T::narrow(0.0); g.out_size()];
                (0..g.sections()).into_par_iter().for_each_init(buffer, |passed, section| pass(section, passed));
                Gradients { input: None, weight: None }
            };
            let mut by_bias = vec![0.0; g.all_out_channels()];
            for (section, sums) in sums.iter().enumerate() {
                let first = section % g.groups * g.out_channels;
                for (by_bias, sum) in by_bias[first..].iter_mut().zip(sums.get().into_iter().flatten()) {
                    *by_bias += sum;
                }
            }
            let by_bias: Vec<T> = by_bias.into_iter().map(T::narrow).collect();
            let tensor = |values: Option<Vec<T>>, like: &Tensor| {
                values.map(|values| Tensor::from_vec(values, like.shape(), like.device())).transpose()
            };
            Ok((tensor(gradients.input, x)?, tensor(gradients.weight, weight)?, gradient(bias, by_bias)?))
        })
    }
}
