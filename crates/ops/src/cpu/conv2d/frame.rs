//! Sections of images in frames of zeros, and where windows and pixels lie in them: see [`super::direct`].

use crate::{cpu::strided_rows::split, shape::conv2d::Geometry};
use std::ops::Range;

/// A section in a frame of zeros; the columns of each row are sorted by their remainder by the stride.
pub(super) struct Frame {
    channels: usize,
    height: usize,
    width: usize,
    /// Where the image's first row and column are.
    pub(super) top: usize,
    pub(super) left: usize,
    /// Rows of a channel.
    rows: usize,
    stride: usize,
    /// Columns with the same remainder.
    columns: usize,
    /// Zeros at the end, for the last vector.
    slack: usize,
}

impl Frame {
    /// x with its padding; the columns of a row are sorted by their remainder by `stride`.
    pub(super) fn of_input(g: &Geometry, stride: usize, slack: usize) -> Self {
        Self {
            channels: g.in_channels,
            height: g.height,
            width: g.width,
            top: g.padding,
            left: g.padding,
            rows: g.height + 2 * g.padding,
            stride,
            columns: (g.width + 2 * g.padding).div_ceil(stride),
            slack,
        }
    }

    /// dy, with room for the taps that reach before it and for the input pixels that reach behind it.
    pub(super) fn of_output_gradient(g: &Geometry, slack: usize) -> Self {
        let side = |kernel: usize, size: usize, out: usize| {
            let before = (kernel - 1) * g.dilation / g.stride;
            (before, before + out.max((size - 1 + g.padding) / g.stride + 1))
        };
        let (top, rows) = side(g.kernel_height, g.height, g.out_height);
        let (left, columns) = side(g.kernel_width, g.width, g.out_width);
        Self {
            channels: g.out_channels,
            height: g.out_height,
            width: g.out_width,
            top,
            left,
            rows,
            stride: 1,
            columns,
            slack,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.at(self.channels, 0, 0) + self.slack
    }

    /// Where the element at this row and column of the frame lies.
    #[inline]
    pub(super) fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        let row = (channel * self.rows + row) * self.stride;
        (row + column % self.stride) * self.columns + column / self.stride
    }

    /// Copies `image` into `frame`, which is zero around it.
    pub(super) fn fill(&self, image: &[f32], frame: &mut [f32]) {
        for (index, row) in image.chunks_exact(self.width).enumerate() {
            let (channel, y) = (index / self.height, index % self.height);
            if self.stride == 1 {
                let start = (channel * self.rows + self.top + y) * self.columns + self.left;
                copy_row(row, &mut frame[start..][..self.width]);
                continue;
            }
            if self.stride == 2 {
                let start = (channel * self.rows + self.top + y) * 2 * self.columns;
                let (even, odd) = frame[start..][..2 * self.columns].split_at_mut(self.columns);
                split(row, self.left, even, odd);
                continue;
            }
            for first in 0..self.stride.min(self.width) {
                let to = &mut frame[self.at(channel, self.top + y, self.left + first)..];
                for (to, &from) in to.iter_mut().zip(row[first..].iter().step_by(self.stride)) {
                    *to = from;
                }
            }
        }
    }
}

/// Copies a row. Most are short, and a call of memcpy would take longer.
#[inline(always)]
fn copy_row<T: Copy>(from: &[T], to: &mut [T]) {
    let (mut from, mut to) = (from.chunks_exact(8), to.chunks_exact_mut(8));
    for (to, from) in (&mut to).zip(&mut from) {
        to.copy_from_slice(from);
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *to = *from;
    }
}

/// The offsets of the elements of a window in a frame of x, in the order of the weight.
pub(super) fn windows(g: &Geometry, frame: &Frame) -> Vec<usize> {
    let channels = 0..g.in_channels;
    channels
        .flat_map(|channel| g.taps().map(move |(a, b)| (channel, a, b)))
        .map(|(c, a, b)| frame.at(c, a * g.dilation, b * g.dilation))
        .collect()
}

/// Pixels of an image, every `step`-th of every `step`-th row, that are computed in vectors along the rows.
pub(super) struct Grid {
    /// Where each vector's windows start in a frame, row after row.
    pub(super) pixels: Vec<usize>,
    /// The image's rows and columns that the grid covers.
    rows: Range<usize>,
    columns: Range<usize>,
    step: usize,
    /// Vectors of a row, times the pixels of a vector.
    padded_columns: usize,
}

impl Grid {
    pub(super) fn of_output(g: &Geometry, frame: &Frame, lanes: usize) -> Self {
        let (rows, columns) = (0..g.out_height, 0..g.out_width);
        Self::new(rows, columns, 1, lanes, |row, vector| frame.at(0, row * g.stride, 0) + vector)
    }

    /// `start(r, c)` is where the window of the pixel in the `r`-th row and `c`-th column of the grid starts.
    pub(super) fn new(
        rows: Range<usize>,
        columns: Range<usize>,
        step: usize,
        lanes: usize,
        start: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let count = |range: &Range<usize>| range.len().div_ceil(step);
        let padded_columns = count(&columns).next_multiple_of(lanes);
        let starts = |row| (0..padded_columns).step_by(lanes).map(move |column| (row, column));
        let pixels = (0..count(&rows)).flat_map(starts).map(|(row, column)| start(row, column)).collect();
        Self { pixels, rows, columns, step, padded_columns }
    }

    pub(super) fn padded_pixels(&self) -> usize {
        self.rows.len().div_ceil(self.step) * self.padded_columns
    }

    /// Whether the vectors hold all pixels of an image of this width and no others.
    pub(super) fn is_whole(&self, width: usize) -> bool {
        self.step == 1 && self.columns == (0..width) && self.padded_columns == width
    }

    /// Writes the pixels in `vectors` to where they belong in each channel of `image`.
    pub(super) fn write<T: Copy>(&self, vectors: &[T], image: &mut [T], height: usize, width: usize) {
        if self.padded_pixels() == 0 {
            return;
        }
        for (channel, vectors) in image.chunks_exact_mut(height * width).zip(vectors.chunks_exact(self.padded_pixels()))
        {
            for (row, vectors) in self.rows.clone().step_by(self.step).zip(vectors.chunks_exact(self.padded_columns)) {
                let to = &mut channel[row * width..][self.columns.clone()];
                if self.step == 1 {
                    copy_row(&vectors[..to.len()], to);
                } else {
                    to.iter_mut().step_by(self.step).zip(vectors).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// Reads the pixels of a channel of an output image into `vectors`, whose rows have zeros at the end.
    pub(super) fn read(&self, channel: &[f32], width: usize, vectors: &mut [f32]) {
        for (from, to) in channel.chunks_exact(width).zip(vectors.chunks_exact_mut(self.padded_columns)) {
            copy_row(from, &mut to[..width]);
        }
    }
}
