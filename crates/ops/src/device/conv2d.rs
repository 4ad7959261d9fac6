//! Convolution of images.
//!
//! By cuDNN with the feature `cudnn`. Without it the windows become the columns of a matrix, of some images at a time, and a
//! matrix product by candle does the rest; a window of one pixel needs no copy.

#[cfg(feature = "cudnn")]
use super::cudnn;
use super::{
    launch::{Launch, THREADS, args, real, size},
    matmul::matmul,
    run::{empty, empty_like},
};
use crate::shape::{conv2d::Geometry, gradients::Backward};
use candle_core::{DType, Result, Tensor};

args!(
    "im2col",
    Windows {
        images: u32,
        groups: u32,
        channels: u32,
        height: u32,
        width: u32,
        out_height: u32,
        out_width: u32,
        kernel_height: u32,
        kernel_width: u32,
        stride: u32,
        padding: u32,
        dilation: u32,
        side_by_side: u32,
        unused: u32,
    }
);

/// Bytes that the columns of some images take, about; in a test few, so that there are several such parts.
const BYTES_OF_COLUMNS: usize = if cfg!(test) { 1 << 12 } else { 256 << 20 };

/// The value of [`crate::conv2d()`], and those of its gradients that are wanted.
pub(crate) fn conv2d(
    inputs: [Tensor; 2],
    geometry: &Geometry,
    wanted: [bool; 2],
) -> Result<(Tensor, Box<dyn Backward>)> {
    let g = *geometry;
    #[cfg(feature = "cudnn")]
    if inputs[0].device().is_cuda() {
        return cudnn::conv2d(inputs, g, wanted);
    }
    let [x, weight] = inputs;
    let y = forward(&x, &weight, &g)?;
    let backward = move |dy: &Tensor| {
        let dx = wanted[0].then(|| by_input(&x, &weight, dy, &g)).transpose()?;
        let dw = wanted[1].then(|| by_weight(&x, &weight, dy, &g)).transpose()?;
        Ok(vec![dx, dw])
    };
    Ok((y, Box::new(backward)))
}

/// The first images and how many of each part.
fn parts(g: &Geometry, dtype: DType) -> impl Iterator<Item = (usize, usize)> + use<> {
    let bytes = g.groups * g.window() * g.out_pixels() * dtype.size_in_bytes();
    let (images, per_part) = (g.images, if g.is_product() { g.images } else { (BYTES_OF_COLUMNS / bytes).max(1) });
    (0..images).step_by(per_part).map(move |start| (start, per_part.min(images - start)))
}

fn windows(g: &Geometry, images: usize, side_by_side: bool) -> Result<Windows> {
    let number = |name: &str, value: usize| size("conv2d", name, value);
    // Places beyond the image are numbers too, since those before it are large ones.
    number("pixels of a side", g.height.max(g.width) + 2 * g.padding)?;
    number("pixels", g.height * g.width)?;
    number("windows", g.out_pixels())?;
    number("planes", images * g.groups * g.in_channels)?;
    Ok(Windows {
        images: images as u32,
        groups: g.groups as u32,
        channels: g.in_channels as u32,
        height: g.height as u32,
        width: g.width as u32,
        out_height: g.out_height as u32,
        out_width: g.out_width as u32,
        kernel_height: g.kernel_height as u32,
        kernel_width: g.kernel_width as u32,
        // One that is larger than an image has one window.
        stride: g.stride.min(1 << 31) as u32,
        padding: g.padding as u32,
        // That of a kernel of one element does not matter.
        dilation: g.dilation.min(1 << 31) as u32,
        side_by_side: side_by_side.into(),
        unused: 0,
    })
}

/// The columns of some images: (images groups, window, pixels), or (groups, window, images pixels) side by side.
fn im2col(x: &Tensor, g: &Geometry, side_by_side: bool) -> Result<Tensor> {
    let images = x.dim(0)?;
    if g.is_product() {
        let sections = x.reshape((images, g.groups, g.in_channels, g.out_pixels()))?;
        return match side_by_side {
            false => sections.reshape((images * g.groups, g.in_channels, g.out_pixels())),
            true => sections.permute((1, 2, 0, 3))?.contiguous()?.reshape((g.groups, g.in_channels, ())),
        };
    }
    let shape = match side_by_side {
        false => (images * g.groups, g.window(), g.out_pixels()),
        true => (g.groups, g.window(), images * g.out_pixels()),
    };
    let columns = empty(shape, x.dtype(), x.device())?;
    let (dtype, args) = (x.dtype(), windows(g, images, side_by_side)?);
    let launch = Launch { name: "im2col", dtype, args, inputs: &[Some(x)], outputs: &[Some(&columns)] };
    // SAFETY: x has planes of these sizes, and the columns, which are new, the elements of all windows of each.
    unsafe { launch.run((images * g.groups * g.in_channels * g.out_pixels()).div_ceil(THREADS))? };
    Ok(columns)
}

/// The weight of each section of some images: (images groups, o, window), without a copy if there is one group.
fn of_sections(weight: &Tensor, g: &Geometry, images: usize) -> Result<Tensor> {
    let weight = weight.reshape((g.groups, g.out_channels, g.window()))?;
    match g.groups {
        1 => weight.broadcast_as((images, g.out_channels, g.window())),
        _ => weight
            .unsqueeze(0)?
            .broadcast_as((images, g.groups, g.out_channels, g.window()))?
            .contiguous()?
            .reshape((images * g.groups, g.out_channels, g.window())),
    }
}

fn forward(x: &Tensor, weight: &Tensor, g: &Geometry) -> Result<Tensor> {
    let parts = parts(g, x.dtype()).map(|(start, images)| {
        let columns = im2col(&x.narrow(0, start, images)?, g, false)?;
        matmul(&of_sections(weight, g, images)?, &columns)
    });
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    let y = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
    y.reshape(g.output_shape())
}

fn by_input(x: &Tensor, weight: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let dy = dy.reshape((g.images, g.groups, g.out_channels, g.out_pixels()))?;
    let dx = empty_like(x)?;
    for (start, images) in parts(g, x.dtype()) {
        let dy = dy.narrow(0, start, images)?.reshape((images * g.groups, g.out_channels, g.out_pixels()))?;
        let columns = matmul(&of_sections(weight, g, images)?.transpose(1, 2)?, &dy)?;
        if g.is_product() {
            // One part, all images.
            return columns.reshape(x.shape());
        }
        let (dtype, args, dx) = (x.dtype(), windows(g, images, false)?, dx.narrow(0, start, images)?);
        let launch = Launch { name: "col2im", dtype, args, inputs: &[Some(&columns)], outputs: &[Some(&dx)] };
        // SAFETY: the columns have the elements of all windows of the planes of dx, which are new.
        unsafe { launch.run(dx.elem_count().div_ceil(THREADS))? };
    }
    Ok(dx)
}

fn by_weight(x: &Tensor, weight: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let dy = dy.reshape((g.images, g.groups, g.out_channels, g.out_pixels()))?;
    let mut sum: Option<Tensor> = None;
    for (start, images) in parts(g, x.dtype()) {
        let columns = im2col(&x.narrow(0, start, images)?, g, true)?;
        let dy = dy.narrow(0, start, images)?.permute((1, 2, 0, 3))?.contiguous()?.reshape((
            g.groups,
            g.out_channels,
            (),
        ))?;
        // Of several parts the sum is in 32 bits at least.
        let part = matmul(&dy, &columns.transpose(1, 2)?)?;
        sum = Some(match sum {
            None if images == g.images => part,
            None => part.to_dtype(real(part.dtype()))?,
            Some(sum) => (&sum + part.to_dtype(sum.dtype())?)?,
        });
    }
    match sum {
        Some(sum) => sum.to_dtype(weight.dtype())?.reshape(weight.shape()),
        None => weight.zeros_like(),
    }
}
