//! The windows of pooling.

use super::{error::fail, windows::Windows};
use candle_core::{Result, Shape};
use std::ops::Range;

/// The windows of [`max_pool2d`](crate::max_pool2d()) and [`avg_pool2d`](crate::avg_pool2d()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dOptions {
    /// Height and width of a window, at least 1.
    pub kernel: (usize, usize),
    /// Pixels between neighbouring windows, at least 1.
    pub stride: usize,
    /// Rows and columns around the image, at most half as many as a window has.
    pub padding: usize,
}

impl Pool2dOptions {
    /// Windows of `size` rows and columns side by side.
    pub fn square(size: usize) -> Self {
        Self { kernel: (size, size), stride: size, padding: 0 }
    }

    /// One window, the whole of an image: global pooling.
    pub fn whole(height: usize, width: usize) -> Self {
        Self { kernel: (height, width), stride: 1, padding: 0 }
    }
}

/// The sizes of a pooling whose shapes fit.
#[derive(Clone, Debug)]
pub(crate) struct Pooling {
    pub pool: Pool2dOptions,
    pub images: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub out_height: usize,
    pub out_width: usize,
    /// Where in a [sorted](Self::sort) row the first window reads each column of the kernel. The other windows follow.
    pub taps: Vec<usize>,
}

impl Pooling {
    pub fn new(op: &str, x: &Shape, pool: Pool2dOptions) -> Result<Self> {
        let &[images, channels, height, width] = x.dims() else { fail!("{op}: x {x:?} must be (n, c, h, w)") };
        let Pool2dOptions { kernel: (kernel_height, kernel_width), stride, padding } = pool;
        let smaller = kernel_height.min(kernel_width);
        if smaller == 0 || stride == 0 {
            fail!("{op}: kernel {kernel_height}x{kernel_width} and stride {stride} must be at least 1");
        }
        if padding > smaller / 2 {
            fail!("{op}: the padding {padding} must be at most half of the kernel {kernel_height}x{kernel_width}");
        }
        let out = |size: usize, kernel: usize| (size + 2 * padding).checked_sub(kernel).map(|room| room / stride + 1);
        let (Some(out_height), Some(out_width)) = (out(height, kernel_height), out(width, kernel_width)) else {
            fail!(
                "{op}: the kernel {kernel_height}x{kernel_width} is larger than the images of x {x:?} with the padding {padding}"
            );
        };
        let pitch = (width + 2 * padding).div_ceil(stride);
        let taps = (0..kernel_width).map(|tap| tap % stride * pitch + tap / stride).collect();
        Ok(Self { pool, images, channels, height, width, out_height, out_width, taps })
    }

    pub fn output_shape(&self) -> Shape {
        Shape::from((self.images, self.channels, self.out_height, self.out_width))
    }

    /// Pixels of a plane of the input.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of a plane of the output.
    pub fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Whether the only window is the image.
    pub fn is_whole(&self) -> bool {
        self.pool.padding == 0 && self.pool.kernel == (self.height, self.width)
    }

    /// The rows of the image in the windows of each row of the output. There is at least one.
    pub fn rows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.spans(self.out_height, self.pool.kernel.0, self.height)
    }

    /// The columns of the image in the windows of each column of the output. There is at least one.
    pub fn columns(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.spans(self.out_width, self.pool.kernel.1, self.width)
    }

    fn spans(&self, out: usize, kernel: usize, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let Pool2dOptions { stride, padding, .. } = self.pool;
        (0..out).map(move |i| (i * stride).saturating_sub(padding)..(i * stride + kernel - padding).min(size))
    }

    /// What the sum over a window of so many pixels of the image is multiplied by to be the mean.
    #[inline]
    pub fn mean_weight(&self, pixels: usize, count_padding: bool) -> f64 {
        let (height, width) = self.pool.kernel;
        1.0 / if count_padding { height * width } else { pixels } as f64
    }

    /// For candle's operations.
    pub fn windows(&self) -> Windows {
        let Pool2dOptions { kernel, stride, padding } = self.pool;
        Windows { kernel, stride, padding, dilation: 1 }
    }
}
