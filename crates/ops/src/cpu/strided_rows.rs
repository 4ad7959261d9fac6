//! Rows of images that windows read with a stride: their columns sorted by the remainder, so that neighbouring windows read
//! neighbours.

use crate::shape::pool2d::{Pool2dOptions, Pooling};
use std::ops::Range;

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

impl Pooling {
    /// Columns of a sorted row, those of the padding included.
    pub fn sorted_width(&self) -> usize {
        self.pool.stride * self.pitch()
    }

    /// Columns of a row with the same remainder.
    fn pitch(&self) -> usize {
        (self.width + 2 * self.pool.padding).div_ceil(self.pool.stride)
    }

    /// Sorts the columns of a row by their remainder by the stride, so that neighbouring windows read neighbours. The columns of the
    /// padding stay what they are.
    #[inline(always)]
    pub fn sort<T: Copy>(&self, row: &[T], sorted: &mut [T]) {
        let Pool2dOptions { stride, padding, .. } = self.pool;
        match stride {
            1 => sorted[padding..][..row.len()].copy_from_slice(row),
            2 => {
                let (even, odd) = sorted.split_at_mut(self.pitch());
                split(row, padding, even, odd);
            }
            _ => row.iter().enumerate().for_each(|(column, &from)| sorted[self.sorted(column)] = from),
        }
    }

    /// Writes a row from its sorted columns.
    #[inline(always)]
    pub fn unsort<T: Copy>(&self, sorted: &[T], row: &mut [T]) {
        let Pool2dOptions { stride, padding, .. } = self.pool;
        match stride {
            1 => row.copy_from_slice(&sorted[padding..][..row.len()]),
            2 => {
                let (even, odd) = sorted.split_at(self.pitch());
                merge(even, odd, padding, row);
            }
            _ => row.iter_mut().enumerate().for_each(|(column, to)| *to = sorted[self.sorted(column)]),
        }
    }

    /// Where a column is in a sorted row.
    fn sorted(&self, column: usize) -> usize {
        let Pool2dOptions { stride, padding, .. } = self.pool;
        (column + padding) % stride * self.pitch() + (column + padding) / stride
    }
}
