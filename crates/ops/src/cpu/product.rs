//! Matrix products within one thread: which part of a product a thread computes is for the ops to say, so that no bit
//! depends on the number of threads.

use crate::cpu::number::Float;
use gemm::{Parallelism, gemm};
use std::mem::MaybeUninit;

/// A matrix in a slice, with its strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    values: &'a [T],
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row after row, each beginning `stride` values after the one before it.
    pub(crate) fn rows(values: &'a [T], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// The sizes of a matrix product, none of them 0.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) inner: usize,
}

impl Product {
    /// `out = a b`, row after row.
    pub(crate) fn set<T: Float>(self, out: &mut [T], a: Matrix<T>, b: Matrix<T>) {
        self.run(out.as_mut_ptr(), out.len(), false, a, b);
    }

    /// `out = a b`, where nothing was written yet.
    pub(crate) fn write<T: Float>(self, out: &mut [MaybeUninit<T>], a: Matrix<T>, b: Matrix<T>) {
        self.run(out.as_mut_ptr().cast(), out.len(), false, a, b);
    }

    /// `out += a b`
    pub(crate) fn add<T: Float>(self, out: &mut [T], a: Matrix<T>, b: Matrix<T>) {
        self.run(out.as_mut_ptr(), out.len(), true, a, b);
    }

    /// With `add`, `out` has values.
    fn run<T: Float>(self, out: *mut T, len: usize, add: bool, a: Matrix<T>, b: Matrix<T>) {
        assert_eq!(len, self.rows * self.columns);
        assert!(a.holds(self.rows, self.inner) && b.holds(self.inner, self.columns));
        let (one, cast) = (T::one(), |stride: usize| stride as isize);
        // SAFETY: T is f32 or f64, the only Floats; all elements that the sizes and strides reach lie in the slices, as
        // asserted above; `out` overlaps neither of the others, since it is borrowed mutably by the callers, and is read
        // only with `add`.
        unsafe {
            gemm(
                self.rows,
                self.columns,
                self.inner,
                out,
                1,
                cast(self.columns),
                add,
                a.values.as_ptr(),
                cast(a.column_stride),
                cast(a.row_stride),
                b.values.as_ptr(),
                cast(b.column_stride),
                cast(b.row_stride),
                one,
                one,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}
