//! Batch norm, scale and shift, and bias: passes over the channels of images.

use super::{
    launch::{Launch, args, real, size},
    run::{empty, empty_like},
};
use crate::shape::{
    batch_norm::BatchNormOutput,
    gradients::{Backward, BackwardByOptionalOutput, BackwardByOutput},
};
use candle_core::{Result, Tensor};

args!(
    "channel",
    Channels { len: u64, eps: f64, channels: u32, pixels: u32, chunks: u32, chunk: u32, relu: u32, unused: u32 }
);

/// Elements of a channel that a block works on, a multiple of a vector's.
const ELEMENTS_PER_BLOCK: usize = 4096;

impl Channels {
    fn of(op: &str, images: &Tensor, eps: f64, relu: bool) -> Result<Self> {
        let (n, channels, height, width) = images.dims4()?;
        let (len, pixels) = (n * height * width, height * width);
        // A place in a chunk and the one where it starts are added up in 32 bits.
        size(op, "pixels", pixels + ELEMENTS_PER_BLOCK)?;
        Ok(Self {
            len: len as u64,
            eps,
            channels: size(op, "channels", channels)?,
            pixels: pixels as u32,
            chunks: size(op, "chunks", len.div_ceil(ELEMENTS_PER_BLOCK))?,
            chunk: ELEMENTS_PER_BLOCK as u32,
            relu: relu.into(),
            unused: 0,
        })
    }

    /// A block per chunk of each channel.
    fn blocks(&self) -> usize {
        self.channels as usize * self.chunks as usize
    }
}

/// What is done to the channels: `(x - mean) inverse weight + bias`, each of which but the bias may be missing.
#[derive(Clone, Copy)]
struct Map<'a> {
    args: Channels,
    x: &'a Tensor,
    /// Mean and inverse deviation of each channel, in the dtype that is computed in.
    kept: Option<&'a Tensor>,
    weight: Option<&'a Tensor>,
    bias: &'a Tensor,
}

/// What the gradient is wanted of.
struct Gradients {
    x: Option<Tensor>,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    /// What passed the rectifier.
    residual: Option<Tensor>,
}

impl Map<'_> {
    fn apply(&self, residual: Option<&Tensor>) -> Result<Tensor> {
        let y = empty_like(self.x)?;
        let inputs = [Some(self.x), self.kept, self.weight, Some(self.bias), residual];
        let (name, dtype, args) = ("normalize", self.x.dtype(), self.args);
        let launch = Launch { name, dtype, args, inputs: &inputs, outputs: &[Some(&y)] };
        // SAFETY: `Channels` is of x's shape, which the residual and y have too; the rest has a number (`kept`, two) for each
        // channel; y is new.
        unsafe { launch.run(args.blocks())? };
        Ok(y)
    }

    /// With `y`, it says where the rectifier is; else what y is made of does. `wanted`: the gradients by x, by weight and bias, and
    /// by the residual.
    fn gradients(&self, y: Option<&Tensor>, dy: &Tensor, wanted: [bool; 3]) -> Result<Gradients> {
        let (args, dtype, device) = (self.args, dy.dtype(), dy.device());
        // All that a bias needs is y.
        let x = (self.kept.is_some() || self.weight.is_some()).then_some(self.x);
        let all = [x, self.kept, self.weight, Some(self.bias), y, Some(dy)];
        let (mut sums, mut by_weight, mut by_bias) = (None, None, None);
        if wanted[1] || (wanted[0] && self.kept.is_some()) {
            let parts = empty((args.blocks(), 2), real(dtype), device)?;
            let launch = Launch { name: "gradient_parts", dtype, args, inputs: &all, outputs: &[Some(&parts)] };
            // SAFETY: as in `apply`; y and dy have x's shape; there are two sums for each block, and they are new.
            unsafe { launch.run(args.blocks())? };
            let channels = args.channels as usize;
            let of_channels = empty((channels, 2), real(dtype), device)?;
            let weight = self.weight.map(empty_like).transpose()?;
            let bias = empty_like(self.bias)?;
            let inputs = [Some(&parts), self.kept];
            let outputs = [Some(&of_channels), weight.as_ref(), Some(&bias)];
            let launch = Launch { name: "gradient_sums", dtype, args, inputs: &inputs, outputs: &outputs };
            // SAFETY: of each channel there are as many parts as chunks; the outputs are new and have a number (`of_channels`,
            // two) for each channel.
            unsafe { launch.run(channels)? };
            (sums, by_weight, by_bias) = (Some(of_channels), weight, Some(bias));
        }
        let by_x = wanted[0].then(|| empty_like(dy)).transpose()?;
        let by_residual = wanted[2].then(|| empty_like(dy)).transpose()?;
        if wanted[0] || wanted[2] {
            let [x, kept, weight, bias, y, dy] = all;
            let inputs = [x, kept, weight, bias, y, dy, sums.as_ref()];
            let outputs = [by_x.as_ref(), by_residual.as_ref()];
            // Without sums no gradient by x is wanted of what has statistics.
            let inputs = if sums.is_none() { [x, None, weight, bias, y, dy, None] } else { inputs };
            let launch = Launch { name: "gradient", dtype: self.x.dtype(), args, inputs: &inputs, outputs: &outputs };
            // SAFETY: as before; the outputs are new and have x's shape.
            unsafe { launch.run(args.blocks())? };
        }
        Ok(Gradients { x: by_x, weight: by_weight, bias: by_bias, residual: by_residual })
    }
}

/// Mean and inverse deviation of each channel, and its mean and variance for the caller.
fn statistics(args: Channels, x: &Tensor) -> Result<[Tensor; 3]> {
    let (dtype, device, channels) = (x.dtype(), x.device(), args.channels as usize);
    let parts = empty((args.blocks(), 3), real(dtype), device)?;
    let launch = Launch { name: "moments", dtype, args, inputs: &[Some(x)], outputs: &[Some(&parts)] };
    // SAFETY: `args` is of x's shape; there are three numbers for each block, and they are new.
    unsafe { launch.run(args.blocks())? };
    let kept = empty((channels, 2), real(dtype), device)?;
    let number = || empty(channels, real(dtype), device);
    let (mean, variance) = (number()?, number()?);
    let outputs = [Some(&kept), Some(&mean), Some(&variance)];
    let launch = Launch { name: "statistics", dtype, args, inputs: &[Some(&parts)], outputs: &outputs };
    // SAFETY: of each channel there are as many parts as chunks; the outputs are new.
    unsafe { launch.run(channels)? };
    Ok([kept, mean, variance])
}

/// `batch_norm(x) + residual` of `[x, weight, bias]`, rectified if `relu`, and its gradients: `wanted` are those by x, by weight and
/// bias, and by the residual. They are made of the gradient by the output, and of the output if it is rectified and there is a
/// residual. The shapes and dtypes are those of [`crate::batch_norm()`], and the residual has x's.
pub(crate) fn batch_norm(
    [x, weight, bias]: [Tensor; 3],
    residual: Option<&Tensor>,
    eps: f64,
    relu: bool,
    wanted: [bool; 3],
) -> Result<(BatchNormOutput, impl BackwardByOptionalOutput + use<>)> {
    let args = Channels::of("batch_norm", &x, eps, relu)?;
    let [kept, mean, variance] = statistics(args, &x)?;
    let y = Map { args, x: &x, kept: Some(&kept), weight: Some(&weight), bias: &bias }.apply(residual)?;
    let backward = move |y: Option<&Tensor>, dy: &Tensor| {
        let map = Map { args, x: &x, kept: Some(&kept), weight: Some(&weight), bias: &bias };
        let Gradients { x, weight, bias, residual } = map.gradients(y, dy, wanted)?;
        Ok(vec![x, weight, bias, residual])
    };
    Ok((BatchNormOutput { output: y, mean, variance }, backward))
}

/// The value of [`crate::scale_shift()`], and those of its gradients that are wanted.
pub(crate) fn scale_shift(
    [x, scale, shift]: [Tensor; 3],
    relu: bool,
    [by_x, by_scale, by_shift]: [bool; 3],
) -> Result<(Tensor, impl Backward)> {
    let args = Channels::of("scale_shift", &x, 0.0, relu)?;
    let y = Map { args, x: &x, kept: None, weight: Some(&scale), bias: &shift }.apply(None)?;
    let backward = move |dy: &Tensor| {
        let map = Map { args, x: &x, kept: None, weight: Some(&scale), bias: &shift };
        let wanted = [by_x, by_scale || by_shift, false];
        let gradients = map.gradients(None, dy, wanted)?;
        Ok(vec![gradients.x, gradients.weight, gradients.bias])
    };
    Ok((y, backward))
}

/// `x + bias`, a number for each channel, and 0 where that is negative if `relu`; and those of the gradients that are wanted.
pub(crate) fn bias(
    [x, bias]: [Tensor; 2],
    relu: bool,
    [by_x, by_bias]: [bool; 2],
) -> Result<(Tensor, impl BackwardByOutput)> {
    let args = Channels::of("bias", &x, 0.0, relu)?;
    let y = Map { args, x: &x, kept: None, weight: None, bias: &bias }.apply(None)?;
    let backward = move |y: &Tensor, dy: &Tensor| {
        // All that it needs of x is in y.
        let map = Map { args, x: y, kept: None, weight: None, bias: &bias };
        let wanted = [by_x && relu, by_bias, false];
        let gradients = map.gradients(Some(y), dy, wanted)?;
        Ok(vec![if relu { gradients.x } else { Some(dy.clone()) }, gradients.bias])
    };
    Ok((y, backward))
}
