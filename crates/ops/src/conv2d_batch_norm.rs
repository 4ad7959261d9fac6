//! Convolution, batch normalisation, residual and rectifier in one operation.

use crate::{
    batch_norm::{Normalized, Statistics, batch_norm},
    channel::{self, Moments},
    conv2d::{Conv2d, Convolve, Geometry, Gradients, OutputGradient, Wanted, conv2d},
    device,
    host::{Reading, fail, is_half, is_ours, slice, wide, with_float},
    relu::add_relu,
    scale_shift::check,
};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};
use rayon::prelude::*;
use std::{
    mem::MaybeUninit,
    sync::{Arc, OnceLock},
};

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
    let statistics = Arc::new(OnceLock::new());
    let op = Op { geometry, options, convolved: OnceLock::new(), statistics: statistics.clone() };
    let x = x.contiguous()?;
    let parameters = kernels.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Pack)?;
    let output = match residual {
        None => x.apply_op2(&parameters, op)?,
        Some(residual) => x.apply_op3(&parameters, &residual.contiguous()?, op)?,
    };
    Normalized::new(output, statistics.get().expect("the forward pass has set them"))
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

/// Kernels, weight and bias in one row, since an operation of candle has three arguments at most.
struct Pack;

impl CustomOp3 for Pack {
    fn name(&self) -> &'static str {
        "conv2d_batch_norm's parameters"
    }

    fn cpu_fwd(
        &self,
        kernels: &CpuStorage,
        kl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_float!(self.name(), kernels.dtype(), T => {
            let packed = [slice::<T>(kernels, kl)?, slice(weight, wl)?, slice(bias, bl)?].concat();
            let len = packed.len();
            Ok((T::to_cpu_storage_owned(packed), Shape::from(len)))
        })
    }

    fn bwd(
        &self,
        kernels: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut start = 0;
        let mut next = |argument: &Tensor| -> Result<Option<Tensor>> {
            let part = gradient.narrow(0, start, argument.elem_count())?;
            start += argument.elem_count();
            argument.track_op().then(|| part.reshape(argument.shape())).transpose()
        };
        Ok((next(kernels)?, next(weight)?, next(bias)?))
    }
}

struct Op {
    geometry: Geometry,
    options: ConvNorm,
    /// The convolution's output. Set by the forward pass, for the backward pass.
    convolved: OnceLock<CpuStorage>,
    /// Set by the forward pass, for the backward pass and the caller.
    statistics: Arc<OnceLock<Vec<Statistics>>>,
}

/// The parts of the packed parameters.
struct Parameters<'a, T> {
    kernels: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
}

impl<'a, T> Parameters<'a, T> {
    fn of(packed: &'a [T], geometry: &Geometry) -> Self {
        let (kernels, channels) = packed.split_at(geometry.weight_size());
        let (weight, bias) = channels.split_at(geometry.all_out_channels());
        Self { kernels, weight, bias }
    }
}

impl Op {
    const NAME: &str = "conv2d_batch_norm";

    fn forward<T: Convolve>(&self, x: &[T], packed: &[T], residual: Option<&[T]>) -> (CpuStorage, Shape) {
        let (g, p) = (&self.geometry, Parameters::of(packed, &self.geometry));
        let channels = g.all_out_channels();
        let moments =
            |_: usize, section: &mut [T]| section.chunks_exact(g.out_pixels()).map(Moments::of).collect::<Vec<_>>();
        let (convolved, moments) = T::forward(g, x, p.kernels, moments);
        // Of all channels of all images.
        let moments = moments.concat();
        let of_channel = |channel| moments.iter().skip(channel).step_by(channels).copied().reduce(Moments::and);
        let statistics: Vec<Statistics> =
            (0..channels).map(|channel| of_channel(channel).unwrap_or_default().into()).collect();
        let affines: Vec<_> = (0..channels)
            .map(|channel| statistics[channel].affine(self.options.eps, p.weight[channel], p.bias[channel]))
            .collect();

        let mut y = Box::new_uninit_slice(convolved.len());
        let size = channels * g.out_pixels();
        let images = y.par_chunks_mut(size).zip(convolved.par_chunks(size)).enumerate();
        images.for_each(|(image, (y, z))| {
            let residual = residual.map(|residual| &residual[image * size..][..size]);
            let planes = y.chunks_exact_mut(g.out_pixels()).zip(z.chunks_exact(g.out_pixels()));
            for (channel, (y, z)) in planes.enumerate() {
                match residual {
                    None => affines[channel].apply(self.options.relu, z, y),
                    Some(residual) => {
                        let residual = &residual[channel * g.out_pixels()..][..g.out_pixels()];
                        affines[channel].apply_and_add(self.options.relu, z, residual, y);
                    }
                }
            }
        });
        // SAFETY: every plane of every image was written.
        let y = unsafe { y.assume_init() }.into_vec();
        // An op runs forward once.
        let _ = self.convolved.set(T::to_cpu_storage_owned(convolved));
        let _ = self.statistics.set(statistics);
        (T::to_cpu_storage_owned(y), g.output_shape())
    }

    /// The gradients by x, the parameters and the residual.
    fn backward<T: Convolve>(
        &self,
        [x, packed, y, dy]: [&Tensor; 4],
        residual: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; 3]> {
        let (g, eps) = (&self.geometry, self.options.eps);
        let dy = dy.contiguous()?;
        let [x_read, packed_read, y_read, dy_read] = [x, packed, y, &dy].map(Reading::new);
        let (p, size) = (Parameters::of(packed_read.slice::<T>()?, g), g.out_pixels());
        let (ys, dys) = (y_read.slice::<T>()?, dy_read.slice::<T>()?);
        let zs: &[T] = self.convolved.get().expect("the forward pass has set it").as_slice::<T>()?;
        let statistics = self.statistics.get().expect("the forward pass has set them");
        let channels = g.all_out_channels();
        let affines: Vec<_> = (0..channels).map(|c| statistics[c].affine(eps, p.weight[c], p.bias[c])).collect();

        let plane = |index: usize| index * size..(index + 1) * size;
        // The gradient that passes the rectifier, where it is needed as the residual's, and its sums in each image.
        let mut passed = residual.is_some_and(Tensor::track_op).then(|| Box::new_uninit_slice(dys.len()));
        let images: Vec<Option<&mut [MaybeUninit<T>]>> = match &mut passed {
            Some(passed) => passed.chunks_mut(channels * size).map(Some).collect(),
            None => (0..g.images).map(|_| None).collect(),
        };
        let relu = self.options.relu;
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
        // One gradient is of all parameters.
        let wanted = Wanted { input: x.track_op(), weight: packed.track_op() };
        let gradient = OutputGradient::Made(&convolved_gradient);
        let Gradients { input, weight } = match wanted {
            Wanted { input: false, weight: false } => Gradients { input: None, weight: None },
            wanted => T::backward(g, x_read.slice()?, p.kernels, &gradient, wanted),
        };
        let parameters = weight.map(|mut gradient| {
            let by = |of: fn(&Statistics, f64, [f64; 2]) -> f64| {
                statistics.iter().zip(&sums).map(move |(statistics, &sums)| T::narrow(of(statistics, eps, sums)))
            };
            gradient.extend(by(|statistics, eps, [_, product]| product * statistics.inverse_deviation(eps)));
            gradient.extend(by(|_, _, [sum, _]| sum));
            gradient
        });
        let tensor = |values: Option<Vec<T>>, like: &Tensor| {
            values.map(|values| Tensor::from_vec(values, like.shape(), like.device())).transpose()
        };
        Ok([tensor(input, x)?, tensor(parameters, packed)?, tensor(passed, y)?])
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, packed: &CpuStorage, pl: &Layout) -> Result<(CpuStorage, Shape)> {
        with_float!(Self::NAME, x.dtype(), T => Ok(self.forward::<T>(slice(x, xl)?, slice(packed, pl)?, None)))
    }

    fn bwd(&self, x: &Tensor, packed: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [by_x, by_parameters, _] = with_float!(Self::NAME, x.dtype(), T => {
            self.backward::<T>([x, packed, y, dy], None)
        })?;
        Ok((by_x, by_parameters))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        packed: &CpuStorage,
        pl: &Layout,
        residual: &CpuStorage,
        rl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_float!(Self::NAME, x.dtype(), T => {
            Ok(self.forward::<T>(slice(x, xl)?, slice(packed, pl)?, Some(slice(residual, rl)?)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        packed: &Tensor,
        residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [by_x, by_parameters, by_residual] = with_float!(Self::NAME, x.dtype(), T => {
            self.backward::<T>([x, packed, y, dy], Some(residual))
        })?;
        Ok((by_x, by_parameters, by_residual))
    }
}
