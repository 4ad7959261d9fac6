//! Convolution as a matrix product per section, for any number type.
//!
//! The windows of a section become the columns of a matrix (c kh kw, pixels), and the output is weight (o, c kh kw) times it.
//! A window of one pixel needs no copy.

use super::gradient::{Gradients, OutputGradient, Wanted, gradients_by_parts};
use crate::{
    cpu::{
        number::Float,
        product::{Matrix, Product},
        strided_rows::inside,
        tensor::{vec_written, written},
    },
    shape::conv2d::Geometry,
};
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

pub(super) fn forward<T: Float, R: Send>(
    g: &Geometry,
    x: &[T],
    weight: &[T],
    seen: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let mut results = Vec::new();
    let write = |y: &mut [MaybeUninit<T>]| {
        let sections = y.par_chunks_mut(g.out_size()).enumerate();
        let sections = sections.map_init(Vec::new, |columns, (section, y)| {
            let x = &x[section * g.in_size()..][..g.in_size()];
            let columns = columns_of(g, x, columns);
            Product { rows: g.out_channels, columns: g.out_pixels(), inner: g.window() }.write(
                y,
                Matrix::rows(g.section_weight(weight, section), g.window()),
                Matrix::rows(columns, g.out_pixels()),
            );
            // SAFETY: the product has written all.
            seen(section, unsafe { written(y) })
        });
        results = sections.collect();
    };
    // SAFETY: each section was written, and these are all.
    let y = unsafe { vec_written(g.sections() * g.out_size(), write) };
    (y, results)
}

pub(super) fn backward<T: Float>(
    g: &Geometry,
    x: &[T],
    weight: &[T],
    dy: &OutputGradient<T>,
    wanted: Wanted,
) -> Gradients<T> {
    gradients_by_parts(g, wanted, g.images_per_part(), g.weight_size(), |images, dx| {
        let (mut dy_buffer, mut columns) = (dy.buffer(g), Vec::new());
        let mut dx = dx.chunks_exact_mut(g.in_size());
        let mut sum = wanted.weight.then(|| vec![T::zero(); g.weight_size()]);
        for section in images.start * g.groups..images.end * g.groups {
            let dy = dy.section(g, section, &mut dy_buffer);
            if let Some(dx) = dx.next() {
                input_gradient(g, g.section_weight(weight, section), dy, dx, &mut columns);
            }
            if let Some(sum) = &mut sum {
                let sum = &mut sum[section % g.groups * g.group_weight_size()..][..g.group_weight_size()];
                let columns = columns_of(g, &x[section * g.in_size()..][..g.in_size()], &mut columns);
                let dy = Matrix::rows(dy, g.out_pixels());
                let product = Product { rows: g.out_channels, columns: g.window(), inner: g.out_pixels() };
                product.add(sum, dy, Matrix::rows(columns, g.out_pixels()).transposed());
            }
        }
        sum
    })
}

/// Writes the gradient by the input of a section, all of it.
fn input_gradient<T: Float>(g: &Geometry, weight: &[T], dy: &[T], dx: &mut [MaybeUninit<T>], columns: &mut Vec<T>) {
    let product = Product { rows: g.window(), columns: g.out_pixels(), inner: g.out_channels };
    let (weight, dy) = (Matrix::rows(weight, g.window()).transposed(), Matrix::rows(dy, g.out_pixels()));
    if g.is_product() {
        return product.write(dx, weight, dy);
    }
    dx.fill(MaybeUninit::new(T::zero()));
    // SAFETY: all were just written.
    let dx = unsafe { written(dx) };
    columns.resize(g.window() * g.out_pixels(), T::zero());
    product.set(columns, weight, dy);
    for_each_run(g, |row, run| {
        let column = &columns[row * g.out_pixels() + run.out.start..][..run.out.len()];
        for (dx, &gradient) in dx[run.input..].iter_mut().step_by(g.stride).zip(column) {
            *dx += gradient;
        }
    });
}

/// The windows of `x` as columns: `x` itself, or written to `columns`.
fn columns_of<'a, T: Float>(g: &Geometry, x: &'a [T], columns: &'a mut Vec<T>) -> &'a [T] {
    if g.is_product() {
        return x;
    }
    columns.clear();
    columns.resize(g.window() * g.out_pixels(), T::zero());
    for_each_run(g, |row, run| {
        let column = &mut columns[row * g.out_pixels()..][run.out];
        for (column, &x) in column.iter_mut().zip(x[run.input..].iter().step_by(g.stride)) {
            *column = x;
        }
    });
    columns
}

/// Output pixels of a row that read the image (not the padding), and the element that the first of them reads; the next
/// ones read every `stride`-th after it.
struct Run {
    out: Range<usize>,
    input: usize,
}

/// Calls `f` with the rows of the matrix of columns and their runs.
fn for_each_run(g: &Geometry, mut f: impl FnMut(usize, Run)) {
    for channel in 0..g.in_channels {
        for (tap, (a, b)) in g.taps().enumerate() {
            let row = channel * g.kernel_height * g.kernel_width + tap;
            let (a, b) = (a * g.dilation, b * g.dilation);
            let columns = inside(b, g.padding, g.stride, g.width, g.out_width);
            for i in inside(a, g.padding, g.stride, g.height, g.out_height) {
                if !columns.is_empty() {
                    let (y, x) = (i * g.stride + a - g.padding, columns.start * g.stride + b - g.padding);
                    let out = i * g.out_width + columns.start..i * g.out_width + columns.end;
                    f(row, Run { out, input: (channel * g.height + y) * g.width + x });
                }
            }
        }
    }
}
