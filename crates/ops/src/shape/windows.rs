//! Where the windows of images lie, and the windows by candle's operations, on any device.

use candle_core::{Result, Tensor};

/// Where the windows of an image lie.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Height and width.
    pub kernel: (usize, usize),
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl Windows {
    /// The windows of images (n, c, h, w) with zeros around them: (n, c, kh kw, windows).
    pub fn unfold(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, height, width) = x.dims4()?;
        let padded = x.pad_with_zeros(2, self.padding, self.padding)?.pad_with_zeros(3, self.padding, self.padding)?;
        let row = width + 2 * self.padding;
        let elements = self.elements(height, width, |i, j| i * row + j);
        let elements = Tensor::new(elements, x.device())?;
        let windows = padded.flatten_from(2)?.contiguous()?.index_select(&elements, 2)?;
        windows.reshape((n, c, self.kernel.0 * self.kernel.1, ()))
    }

    /// For each position in the kernel, of each window the pixel of the image that is nearest to it.
    pub fn nearest(&self, height: usize, width: usize) -> Vec<u32> {
        let inside = |i: usize, size: usize| i.saturating_sub(self.padding).min(size - 1);
        self.elements(height, width, |i, j| inside(i, height) * width + inside(j, width))
    }

    /// For each position in the kernel, of each window what `at` says of its row and column in the padded image.
    fn elements(&self, height: usize, width: usize, at: impl Fn(usize, usize) -> usize) -> Vec<u32> {
        let Self { kernel: (kernel_height, kernel_width), stride, padding, dilation } = *self;
        let starts = |size: usize, kernel: usize| {
            (0..=size + 2 * padding - (kernel - 1) * dilation - 1).step_by(stride).collect::<Vec<_>>()
        };
        let (rows, columns) = (starts(height, kernel_height), starts(width, kernel_width));
        let mut elements = Vec::with_capacity(kernel_height * kernel_width * rows.len() * columns.len());
        for (a, b) in (0..kernel_height).flat_map(|a| (0..kernel_width).map(move |b| (a * dilation, b * dilation))) {
            for row in &rows {
                elements.extend(columns.iter().map(|column| at(row + a, column + b) as u32));
            }
        }
        elements
    }
}
