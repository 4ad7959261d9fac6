//! Convolution of images.

mod direct;
mod geometry;
mod im2col;
mod tile;

use crate::host::{Float, Reading, fail, is_ours, slice, with_float};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, backend::BackendStorage};
use geometry::Geometry;

/// The convolution (in the sense of neural networks: a cross-correlation) of images `x` (n, c, h, w) with the kernels
/// `weight` (o, c, kh, kw): with `p` the padding and zeros around the image,
///
/// `y[n, o, i, j] = sum over c, a, b of x[n, c, i stride + a - p, j stride + b - p] weight[o, c, a, b]`,
///
/// of the shape (n, o, (h + 2 p - kh) / stride + 1, (w + 2 p - kw) / stride + 1), as PyTorch's `conv2d`.
///
/// f32 and f64 on the CPU are computed here, forward and backward, to the same bits for any number of threads; other
/// tensors by candle. The gradient by an argument that has no gradient (the first layer's images) is not computed.
///
/// # Errors
/// When shapes or dtypes do not fit each other, the stride is 0, or the kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let op = Conv2d { stride, padding };
    op.geometry(x.shape(), weight.shape())?;
    if !is_ours(x) {
        return x.conv2d(weight, padding, stride, 1, 1);
    }
    x.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

struct Conv2d {
    stride: usize,
    padding: usize,
}

impl Conv2d {
    fn geometry(&self, x: &Shape, weight: &Shape) -> Result<Geometry> {
        Geometry::new(x, weight, self.stride, self.padding)
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = self.geometry(xl.shape(), wl.shape())?;
        with_float!(self.name(), x.dtype(), T => {
            let y = T::forward(&geometry, slice(x, xl)?, slice(weight, wl)?);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), geometry.output_shape()))
        })
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry(x.shape(), weight.shape())?;
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let (x_read, weight_read, dy) = (Reading::new(x), Reading::new(weight), Reading::new(&dy));
            let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
            let dx = x.track_op().then(|| {
                tensor(T::input_gradient(&geometry, weight_read.slice()?, dy.slice()?), x)
            });
            let dw = weight.track_op().then(|| {
                tensor(T::weight_gradient(&geometry, x_read.slice()?, dy.slice()?), weight)
            });
            Ok((dx.transpose()?, dw.transpose()?))
        })
    }
}

/// The three passes of a convolution, by the method that suits the number type and the shape.
trait Convolve: Float {
    fn forward(geometry: &Geometry, x: &[Self], weight: &[Self]) -> Vec<Self>;
    fn input_gradient(geometry: &Geometry, weight: &[Self], dy: &[Self]) -> Vec<Self>;
    fn weight_gradient(geometry: &Geometry, x: &[Self], dy: &[Self]) -> Vec<Self>;
}

impl Convolve for f64 {
    fn forward(geometry: &Geometry, x: &[f64], weight: &[f64]) -> Vec<f64> {
        im2col::forward(geometry, x, weight)
    }
    fn input_gradient(geometry: &Geometry, weight: &[f64], dy: &[f64]) -> Vec<f64> {
        im2col::input_gradient(geometry, weight, dy)
    }
    fn weight_gradient(geometry: &Geometry, x: &[f64], dy: &[f64]) -> Vec<f64> {
        im2col::weight_gradient(geometry, x, dy)
    }
}

impl Convolve for f32 {
    fn forward(geometry: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f32> {
        match geometry.is_product() {
            true => im2col::forward(geometry, x, weight),
            false => direct::forward(geometry, x, weight),
        }
    }
    fn input_gradient(geometry: &Geometry, weight: &[f32], dy: &[f32]) -> Vec<f32> {
        match geometry.is_product() {
            true => im2col::input_gradient(geometry, weight, dy),
            false => direct::input_gradient(geometry, weight, dy),
        }
    }
    fn weight_gradient(geometry: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
        match geometry.is_product() {
            true => im2col::weight_gradient(geometry, x, dy),
            false => direct::weight_gradient(geometry, x, dy),
        }
    }
}
