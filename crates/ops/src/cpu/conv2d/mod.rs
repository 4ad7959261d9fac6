//! Convolution of images, by the method that suits the number type and the shape.

mod direct;
mod frame;
pub(crate) mod gradient;
mod im2col;
mod narrow;
mod tile;
mod weight_gradient;
mod winograd;

use self::gradient::{Gradients, OutputGradient, Wanted};
use crate::{
    cpu::{
        number::{Float, with_float},
        tensor::{self, Reading, tensor},
    },
    shape::{conv2d::Geometry, gradients::Backward},
};
use candle_core::{Result, Tensor};

/// The value of [`crate::conv2d()`], and those of its gradients that are wanted.
pub(crate) fn conv2d(
    [x, weight]: [Tensor; 2],
    geometry: Geometry,
    [by_input, by_weight]: [bool; 2],
) -> Result<(Tensor, impl Backward)> {
    let wanted = Wanted { input: by_input, weight: by_weight };
    let y = with_float!("conv2d", x.dtype(), T => {
        let [x_read, weight_read] = [&x, &weight].map(Reading::new);
        let (y, _) = T::forward(&geometry, x_read.slice()?, weight_read.slice()?, |_, _| ());
        tensor::<T>(y, geometry.output_shape())
    })?;
    let gradients = move |dy: &Tensor| {
        with_float!("conv2d", dy.dtype(), T => {
            let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
            let dy = OutputGradient::Given(dy_read.slice()?);
            let Gradients { input, weight: by_weight } =
                <T as Convolve>::backward(&geometry, x_read.slice()?, weight_read.slice()?, &dy, wanted);
            Ok(vec![tensor::gradient(input, &x)?, tensor::gradient(by_weight, &weight)?])
        })
    };
    Ok((y, gradients))
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
