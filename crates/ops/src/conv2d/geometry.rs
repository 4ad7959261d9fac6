//! The sizes of a convolution.

use crate::host::fail;
use candle_core::{Result, Shape};

/// Into how many parts the images are shared for the gradient by the weight. Each part is summed image by image and the
/// parts in order, so this number, and no number of threads, decides the bits.
const PARTS: usize = 16;

/// The sizes of a convolution whose shapes fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub images: usize,
    pub in_channels: usize,
    pub height: usize,
    pub width: usize,
    pub out_channels: usize,
    pub kernel_height: usize,
    pub kernel_width: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Geometry {
    pub fn new(x: &Shape, weight: &Shape, stride: usize, padding: usize) -> Result<Self> {
        let (&[images, in_channels, height, width], &[out_channels, weight_channels, kernel_height, kernel_width]) =
            (x.dims(), weight.dims())
        else {
            fail!("conv2d: x {x:?} and weight {weight:?} must be (n, c, h, w) and (o, c, kh, kw)");
        };
        if in_channels != weight_channels {
            fail!("conv2d: x {x:?} has {in_channels} channels and weight {weight:?} is for {weight_channels}");
        }
        if stride == 0 {
            fail!("conv2d: the stride is 0 and must be at least 1");
        }
        if [in_channels, height, width, out_channels, kernel_height, kernel_width].contains(&0) {
            fail!("conv2d: x {x:?} and weight {weight:?} must have no size of 0, except for no images");
        }
        let out = |size: usize, kernel: usize| (size + 2 * padding).checked_sub(kernel).map(|room| room / stride + 1);
        let (Some(out_height), Some(out_width)) = (out(height, kernel_height), out(width, kernel_width)) else {
            fail!("conv2d: the kernel of weight {weight:?} is larger than x {x:?} with the padding {padding}");
        };
        Ok(Self {
            images,
            in_channels,
            height,
            width,
            out_channels,
            kernel_height,
            kernel_width,
            out_height,
            out_width,
            stride,
            padding,
        })
    }

    /// Whether each pixel is its own window, so that the convolution is a matrix product.
    pub fn is_product(&self) -> bool {
        (self.kernel_height, self.kernel_width, self.stride, self.padding) == (1, 1, 1, 0)
    }

    /// Elements of an input image.
    pub fn in_size(&self) -> usize {
        self.in_channels * self.height * self.width
    }

    /// Pixels of an output image.
    pub fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Elements of an output image.
    pub fn out_size(&self) -> usize {
        self.out_channels * self.out_pixels()
    }

    /// Elements of the window under a kernel: c kh kw.
    pub fn window(&self) -> usize {
        self.in_channels * self.kernel_height * self.kernel_width
    }

    /// Elements of the weight.
    pub fn weight_size(&self) -> usize {
        self.out_channels * self.window()
    }

    /// The positions in the kernel, in the order of the weight.
    pub fn taps(&self) -> impl Iterator<Item = (usize, usize)> {
        let kernel_width = self.kernel_width;
        (0..self.kernel_height).flat_map(move |a| (0..kernel_width).map(move |b| (a, b)))
    }

    pub fn output_shape(&self) -> Shape {
        Shape::from((self.images, self.out_channels, self.out_height, self.out_width))
    }

    /// Images of a part.
    pub fn images_per_part(&self) -> usize {
        self.images.div_ceil(PARTS).max(1)
    }
}
