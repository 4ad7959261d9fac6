//! The sizes of a convolution.

use super::error::fail;
use candle_core::{Result, Shape};

/// The options of [`conv2d`](crate::conv2d()), those of PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Pixels between neighbouring windows, at least 1.
    pub stride: usize,
    /// Rows and columns of zeros on each side of the image.
    pub padding: usize,
    /// Pixels between the elements of a window, at least 1.
    pub dilation: usize,
    /// Into how many groups the channels are split, at least 1. A group of output channels sees its group of input channels alone.
    /// As many groups as input channels make a depthwise convolution.
    pub groups: usize,
}

/// As PyTorch: a stride and a dilation of 1, no padding, and one group.
impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// The options of [`conv2d_batch_norm`](crate::conv2d_batch_norm()).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dBatchNormOptions {
    /// The options of the convolution.
    pub conv: Conv2dOptions,
    /// What is added to the variance.
    pub eps: f64,
    /// Whether the output is rectified: what is negative becomes 0.
    pub relu: bool,
}

/// The sizes of a convolution whose shapes fit.
///
/// A convolution in groups is one of as many sections as images times groups: a section is the channels of a group in an
/// image. They lie one after another, in the input as in the output, and section `i` has the weight of the group `i % groups`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub images: usize,
    pub groups: usize,
    /// Channels of a section.
    pub in_channels: usize,
    pub height: usize,
    pub width: usize,
    /// Channels of a section.
    pub out_channels: usize,
    pub kernel_height: usize,
    pub kernel_width: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl Geometry {
    pub fn new(x: &Shape, weight: &Shape, options: Conv2dOptions) -> Result<Self> {
        let Conv2dOptions { stride, padding, dilation, groups } = options;
        let (&[images, all_in, height, width], &[all_out, in_channels, kernel_height, kernel_width]) =
            (x.dims(), weight.dims())
        else {
            fail!("conv2d: x {x:?} and weight {weight:?} must be (n, c, h, w) and (o, c / groups, kh, kw)");
        };
        for (name, value) in [("stride", stride), ("dilation", dilation), ("number of groups", groups)] {
            if value == 0 {
                fail!("conv2d: the {name} is 0 and must be at least 1");
            }
        }
        if all_in != groups * in_channels {
            fail!(
                "conv2d: x {x:?} has {all_in} channels and weight {weight:?} is for {}, {in_channels} in each of {groups} group(s)",
                groups * in_channels
            );
        }
        if !all_out.is_multiple_of(groups) {
            fail!("conv2d: weight {weight:?} has {all_out} output channels, which do not divide into {groups} groups");
        }
        if [all_in, height, width, all_out, kernel_height, kernel_width].contains(&0) {
            fail!("conv2d: x {x:?} and weight {weight:?} must have no size of 0, except for no images");
        }
        let out = |size: usize, kernel: usize| {
            let span = (kernel - 1) * dilation + 1;
            (size + 2 * padding).checked_sub(span).map(|room| room / stride + 1)
        };
        let (Some(out_height), Some(out_width)) = (out(height, kernel_height), out(width, kernel_width)) else {
            fail!(
                "conv2d: the kernel of weight {weight:?} with the dilation {dilation} is larger than x {x:?} with the padding \
                 {padding}"
            );
        };
        Ok(Self {
            images,
            groups,
            in_channels,
            height,
            width,
            out_channels: all_out / groups,
            kernel_height,
            kernel_width,
            out_height,
            out_width,
            stride,
            padding,
            dilation,
        })
    }

    /// Whether each pixel is its own window, so that the convolution is a matrix product.
    pub fn is_product(&self) -> bool {
        (self.kernel_height, self.kernel_width, self.stride, self.padding) == (1, 1, 1, 0)
    }

    pub fn sections(&self) -> usize {
        self.images * self.groups
    }

    /// Output channels of an image.
    pub fn all_out_channels(&self) -> usize {
        self.groups * self.out_channels
    }

    /// Elements of a section of the input.
    pub fn in_size(&self) -> usize {
        self.in_channels * self.height * self.width
    }

    /// Pixels of an output image.
    pub fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Elements of a section of the output.
    pub fn out_size(&self) -> usize {
        self.out_channels * self.out_pixels()
    }

    /// Elements of the window under a kernel: c kh kw.
    pub fn window(&self) -> usize {
        self.in_channels * self.kernel_height * self.kernel_width
    }

    /// Elements of a group's weight.
    pub fn group_weight_size(&self) -> usize {
        self.out_channels * self.window()
    }

    /// Elements of the weight.
    pub fn weight_size(&self) -> usize {
        self.groups * self.group_weight_size()
    }

    /// The weight of each group.
    pub fn group_weights<'a, T>(&self, weight: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        weight.chunks_exact(self.group_weight_size())
    }

    /// The part of the weight that a section is convolved with.
    pub fn section_weight<'a, T>(&self, weight: &'a [T], section: usize) -> &'a [T] {
        &weight[section % self.groups * self.group_weight_size()..][..self.group_weight_size()]
    }

    /// The positions in the kernel, in the order of the weight.
    pub fn taps(&self) -> impl Iterator<Item = (usize, usize)> {
        let kernel_width = self.kernel_width;
        (0..self.kernel_height).flat_map(move |a| (0..kernel_width).map(move |b| (a, b)))
    }

    pub fn output_shape(&self) -> Shape {
        Shape::from((self.images, self.all_out_channels(), self.out_height, self.out_width))
    }
}
