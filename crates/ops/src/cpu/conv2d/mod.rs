//! Convolution of images.

mod direct;
mod gradient;
mod im2col;
mod narrow;
mod tile;
mod weight_gradient;
mod winograd;

use crate::{
    cpu::tensor::{Float, Reading, fail, gradient, is_half, is_ours, tensor, wide, with_float},
    device,
    graph::{differentiable, plain},
    shape::conv2d::{Conv2d, Geometry},
    shape::windows::Windows,
};
use candle_core::{Result, Tensor};

pub(crate) use gradient::{Gradients, OutputGradient, Wanted};

/// The convolution (in the sense of neural networks: a cross-correlation) of images `x` (n, c, h, w) with the kernels
/// `weight` (o, c / groups, kh, kw): with stride `s`, padding `p`, dilation `d`, and zeros around the image,
///
/// `y[n, o, i, j] = sum over c, a, b of x[n, g c / groups + c, i s + a d - p, j s + b d - p] weight[o, c, a, b]`,
///
/// where `c` runs over the `c / groups` channels of the group `g` that `o` is of (the first `o / groups` output channels are the
/// first group's). Its shape is (n, o, (h + 2 p - d (kh - 1) - 1) / s + 1, (w + 2 p - d (kw - 1) - 1) / s + 1). As PyTorch's
/// `conv2d`.
///
/// On the CPU it is computed here, forward and backward, to the same bits for any number of threads; on CUDA by cuDNN or as matrix
/// products, and on Metal by candle. The gradient by an argument that has no gradient (the first layer's images) is not computed.
///
/// # Errors
/// When shapes or dtypes do not fit each other, stride, dilation or groups is 0, the groups do not divide the channels, or the
/// kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, options: Conv2d) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), weight.shape(), options)?;
    if device::runs(x) {
        return device::conv2d(x, weight, &geometry);
    }
    if is_half(x) {
        return conv2d(&wide(x)?, &wide(weight)?, options)?.to_dtype(x.dtype());
    }
    if !is_ours(x) {
        return composed(x, weight, options, &geometry);
    }
    ours([x, weight], geometry)
}

/// The same by candle's operations, for other devices.
fn composed(x: &Tensor, weight: &Tensor, options: Conv2d, g: &Geometry) -> Result<Tensor> {
    // candle differentiates a convolution by a transposed one that it gives as many more rows as columns.
    let more = |size: usize, kernel: usize, out: usize| {
        (size + 2 * g.padding).checked_sub((out - 1) * g.stride + (kernel - 1) * g.dilation + 1)
    };
    let reach = |kernel: usize, out: usize| (out - 1) * g.stride + (kernel - 1) * g.dilation + 1;
    let has_gradient = more(g.height, g.kernel_height, g.out_height) == more(g.width, g.kernel_width, g.out_width)
        && reach(g.kernel_height, g.out_height).min(reach(g.kernel_width, g.out_width)) > 2 * g.padding;
    if has_gradient {
        return x.conv2d(weight, options.padding, options.stride, options.dilation, options.groups);
    }
    let kernel = (g.kernel_height, g.kernel_width);
    let columns = Windows { kernel, stride: g.stride, padding: g.padding, dilation: g.dilation }.unfold(x)?;
    let columns = columns.reshape((g.images, g.groups, g.window(), g.out_pixels()))?;
    let weight = weight.reshape((1, g.groups, g.out_channels, g.window()))?;
    weight.broadcast_matmul(&columns)?.reshape(g.output_shape())
}

fn ours(inputs: [&Tensor; 2], geometry: Geometry) -> Result<Tensor> {
    let [x, weight] = plain(inputs)?;
    let wanted = Wanted { input: inputs[0].track_op(), weight: inputs[1].track_op() };
    let y = with_float!("conv2d", x.dtype(), T => {
        let [x_read, weight_read] = [&x, &weight].map(Reading::new);
        let (y, _) = T::forward(&geometry, x_read.slice()?, weight_read.slice()?, |_, _| ());
        tensor::<T>(y, geometry.output_shape())
    })?;
    differentiable("conv2d", &inputs, y, move |dy| {
        with_float!("conv2d", dy.dtype(), T => {
            let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
            let dy = OutputGradient::Given(dy_read.slice()?);
            let Gradients { input, weight: by_weight } =
                <T as Convolve>::backward(&geometry, x_read.slice()?, weight_read.slice()?, &dy, wanted);
            Ok(vec![gradient(input, &x)?, gradient(by_weight, &weight)?])
        })
    })
}

/// The passes of a convolution, by the method that suits the number type and the shape.
pub(crate) trait Convolve: Float {
    /// The output, and what `seen` returns for each section of it, in order; it may change what it sees.
    fn forward<R: Send>(
        geometry: &Geometry,
        x: &[Self],
        weight: &[Self],
        seen: impl Fn(usize, &mut [Self]) -> R + Sync,
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
        seen: impl Fn(usize, &mut [f64]) -> R + Sync,
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
        seen: impl Fn(usize, &mut [f32]) -> R + Sync,
    ) -> (Vec<f32>, Vec<R>) {
        match g.is_product() {
            true => im2col::forward(g, x, weight, seen),
            false if winograd::suits(g) => winograd::forward(g, x, weight, seen),
            false => direct::forward(g, x, weight, seen),
        }
    }

    fn backward(g: &Geometry, x: &[f32], weight: &[f32], dy: &OutputGradient<f32>, wanted: Wanted) -> Gradients<f32> {
        match g.is_product() {
            true => im2col::backward(g, x, weight, dy, wanted),
            false if winograd::suits(g) => winograd::backward(g, x, weight, dy, wanted),
            false => direct::backward(g, x, weight, dy, wanted),
        }
    }
}
