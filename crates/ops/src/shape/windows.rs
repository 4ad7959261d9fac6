//! Where the windows of images lie, and the windows by candle's operations, on any device.

use candle_core::{Result, Tensor};
use std::ops::Range;

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

/// The outputs `i` in `0..out` with `0 <= i stride + tap - padding < size`, for a tap at this distance from a window's start.
pub(crate) fn inside(tap: usize, padding: usize, stride: usize, size: usize, out: usize) -> Range<usize> {
    let start = padding.saturating_sub(tap).div_ceil(stride);
    let end = (size + padding).saturating_sub(tap).div_ceil(stride).min(out);
    start..end.max(start)
}

/// Writes every second number of `row`, which begins at the place `left`, to those of the even places and the others to those of the
/// odd ones.
#[inline(always)]
pub(crate) fn split<T: Copy>(row: &[T], left: usize, even: &mut [T], odd: &mut [T]) {
    let (first, second) = match left.is_multiple_of(2) {
        true => (&mut even[left / 2..], &mut odd[left / 2..]),
        false => (&mut odd[left / 2..], &mut even[left / 2 + 1..]),
    };
    let pairs = row.chunks_exact(2);
    if let [last] = *pairs.remainder() {
        first[row.len() / 2] = last;
    }
    for ((first, second), pair) in first.iter_mut().zip(second).zip(pairs) {
        (*first, *second) = (pair[0], pair[1]);
    }
}

/// The inverse of [`split`].
#[inline(always)]
pub(crate) fn merge<T: Copy>(even: &[T], odd: &[T], left: usize, row: &mut [T]) {
    let (first, second) = match left.is_multiple_of(2) {
        true => (&even[left / 2..], &odd[left / 2..]),
        false => (&odd[left / 2..], &even[left / 2 + 1..]),
    };
    let (pairs, last) = row.as_chunks_mut::<2>();
    if let [last] = last {
        *last = first[pairs.len()];
    }
    for (pair, (first, second)) in pairs.iter_mut().zip(first.iter().zip(second)) {
        *pair = [*first, *second];
    }
}
