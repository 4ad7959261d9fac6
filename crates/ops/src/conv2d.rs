//! Convolution of images.

mod direct;
mod geometry;
mod gradient;
mod im2col;
mod tile;

use crate::host::{Float, Reading, fail, is_ours, slice, with_float};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, backend::BackendStorage};

pub(crate) use geometry::Geometry;
pub(crate) use gradient::{Gradients, OutputGradient, Wanted};

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
            let (y, _) = T::forward(&geometry, slice(x, xl)?, slice(weight, wl)?, |_| ());
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), geometry.output_shape()))
        })
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry(x.shape(), weight.shape())?;
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let (x_read, weight_read, dy) = (Reading::new(x), Reading::new(weight), Reading::new(&dy));
            let wanted = Wanted { input: x.track_op(), weight: weight.track_op() };
            let dy = OutputGradient::Given(dy.slice()?);
            let gradients: Gradients<T> = T::backward(&geometry, x_read.slice()?, weight_read.slice()?, &dy, wanted);
            let tensor = |values: Option<Vec<T>>, like: &Tensor| {
                values.map(|values| Tensor::from_vec(values, like.shape(), like.device())).transpose()
            };
            Ok((tensor(gradients.input, x)?, tensor(gradients.weight, weight)?))
        })
    }
}

/// The passes of a convolution, by the method that suits the number type and the shape.
pub(crate) trait Convolve: Float {
    /// The output, and what `seen` returns for each image of it, in order.
    fn forward<R: Send>(
        geometry: &Geometry,
        x: &[Self],
        weight: &[Self],
        seen: impl Fn(&[Self]) -> R + Sync,
    ) -> (Vec<Self>, Vec<R>);

    fn backward(
        geometry: &Geometry,
        x: &[Self],
        weight: &[Self],
        dy: &OutputGradient<Self>,
        wanted: Wanted,
    ) -> Gradients<Self>;
}

impl Convolve for f64 {
    fn forward<R: Send>(
        g: &Geometry,
        x: &[f64],
        weight: &[f64],
        seen: impl Fn(&[f64]) -> R + Sync,
    ) -> (Vec<f64>, Vec<R>) {
        im2col::forward(g, x, weight, seen)
    }

    fn backward(g: &Geometry, x: &[f64], weight: &[f64], dy: &OutputGradient<f64>, wanted: Wanted) -> Gradients<f64> {
        im2col::backward(g, x, weight, dy, wanted)
    }
}

impl Convolve for f32 {
    fn forward<R: Send>(
        g: &Geometry,
        x: &[f32],
        weight: &[f32],
        seen: impl Fn(&[f32]) -> R + Sync,
    ) -> (Vec<f32>, Vec<R>) {
        match g.is_product() {
            true => im2col::forward(g, x, weight, seen),
            false => direct::forward(g, x, weight, seen),
        }
    }

    fn backward(g: &Geometry, x: &[f32], weight: &[f32], dy: &OutputGradient<f32>, wanted: Wanted) -> Gradients<f32> {
        match g.is_product() {
            true => im2col::backward(g, x, weight, dy, wanted),
            false => direct::backward(g, x, weight, dy, wanted),
        }
    }
}
