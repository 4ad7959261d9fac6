//! Eigenvectors, QR and roots of stacks of matrices. They are computed on the CPU; what comes from another device goes back to it.

use crate::error::Result;
use crate::matrix::elementwise::{number, with_values};
use candle_core::{DType, Device, Tensor, WithDType, bail};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply,
};
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::traits::RealField;
use faer::{Accum, Conj, Mat, MatRef, Par, Spec};
use rayon::prelude::*;

/// The eigenvectors of each symmetric matrix of a stack `[n, side, side]`, as columns, in descending order of their eigenvalues.
///
/// They are computed in `f64`. What is above the diagonal is not read. Where eigenvalues are equal, the basis of their space is
/// arbitrary.
///
/// A matrix with a number that is not finite gives NaN. Fails where the matrices are not square.
pub fn eigenvectors(stack: &Tensor) -> Result<Tensor> {
    let vectors = |matrix: MatRef<'_, f64>| Ok(eigen(matrix)?.1);
    Ok(each::<f64>(&stack.to_dtype(DType::F64)?, vectors)?.to_dtype(stack.dtype())?.to_device(stack.device())?)
}

/// `(A + eps l I)^(-1 / p)` of each symmetric matrix A, positive semidefinite but for rounding, of a stack `[n, side, side]`, where `l`
/// is its largest eigenvalue. `p` and `eps` are above 0. Of a matrix of zeros it is the identity.
///
/// It is computed in `f64`. What is above the diagonal is not read.
///
/// A matrix with a number that is not finite gives NaN. Fails where the matrices are not square.
pub fn inverse_root(stack: &Tensor, p: f64, eps: f64) -> Result<Tensor> {
    let root = |matrix: MatRef<'_, f64>| {
        let (values, vectors) = eigen(matrix)?;
        let side = values.len();
        let largest = values.first().map_or(0.0, |first| if *first < 0.0 { 0.0 } else { *first });
        let root = |value: f64| match largest {
            0.0 => 1.0,
            _ => (value.max(0.0) + eps * largest).powf(-1.0 / p),
        };
        let scaled = Mat::from_fn(side, side, |i, j| vectors[(i, j)] * root(values[j]));
        let mut root = Mat::zeros(side, side);
        matmul(root.as_mut(), Accum::Replace, scaled.as_ref(), vectors.transpose(), 1.0, Par::Seq);
        Ok(root)
    };
    Ok(each::<f64>(&stack.to_dtype(DType::F64)?, root)?.to_dtype(stack.dtype())?.to_device(stack.device())?)
}

/// Q of the decomposition `A = Q R` of each matrix of a stack `[n, side, side]`: orthogonal, while R is upper triangular. Signs of
/// columns are those of Householder's reflections.
///
/// Fails where the matrices are not square.
pub fn qr(stack: &Tensor) -> Result<Tensor> {
    let q = match stack.dtype() {
        DType::F32 => each(stack, |matrix: MatRef<'_, f32>| Ok(orthogonal(matrix)))?,
        _ => each(&stack.to_dtype(DType::F64)?, |matrix: MatRef<'_, f64>| Ok(orthogonal(matrix)))?,
    };
    Ok(q.to_dtype(stack.dtype())?.to_device(stack.device())?)
}

/// `f` of each matrix, on the CPU.
fn each<T: WithDType>(
    stack: &Tensor,
    f: impl Fn(MatRef<'_, T>) -> candle_core::Result<Mat<T>> + Sync,
) -> candle_core::Result<Tensor> {
    let &[_, rows, columns] = stack.dims() else { bail!("a stack [n, side, side] is needed, not {:?}", stack.dims()) };
    if rows != columns {
        bail!("square matrices [n, side, side] are needed, not {:?}", stack.dims());
    }
    let mut out = vec![number::<T>(0.0); stack.elem_count()];
    if !out.is_empty() {
        with_values(&stack.to_device(&Device::Cpu)?, |values: &[T]| {
            let stacks = out.par_chunks_mut(rows * columns).zip(values.par_chunks(rows * columns));
            stacks.try_for_each(|(out, values)| {
                let result = f(MatRef::from_row_major_slice(values, rows, columns))?;
                for (i, row) in out.chunks_mut(columns).enumerate() {
                    for (j, to) in row.iter_mut().enumerate() {
                        *to = result[(i, j)];
                    }
                }
                Ok::<_, candle_core::Error>(())
            })
        })?;
    }
    Tensor::from_vec(out, stack.dims(), &Device::Cpu)
}

/// Eigenvalues, descending, and the eigenvectors as columns.
fn eigen(matrix: MatRef<'_, f64>) -> candle_core::Result<(Vec<f64>, Mat<f64>)> {
    let side = matrix.nrows();
    if !matrix.is_all_finite() {
        return Ok((vec![f64::NAN; side], Mat::from_fn(side, side, |_, _| f64::NAN)));
    }
    let (mut values, mut vectors) = (Diag::<f64>::zeros(side), Mat::<f64>::zeros(side, side));
    let scratch = self_adjoint_evd_scratch::<f64>(side, ComputeEigenvectors::Yes, Par::Seq, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    let memory = MemStack::new(&mut memory);
    let done = self_adjoint_evd(matrix, values.as_mut(), Some(vectors.as_mut()), Par::Seq, memory, Spec::default());
    // They come in ascending order.
    let values: Vec<f64> = values.column_vector().iter().rev().copied().collect();
    if done.is_err() {
        bail!("the eigenvalues of a matrix of side {side} were not found");
    }
    Ok((values, Mat::from_fn(side, side, |i, j| vectors[(i, side - 1 - j)])))
}

fn orthogonal<T: RealField>(matrix: MatRef<'_, T>) -> Mat<T> {
    let side = matrix.nrows();
    let mut factors = matrix.to_owned();
    let block = recommended_block_size::<T>(side, side);
    let mut coefficients = Mat::zeros(block, side);
    let mut memory = MemBuffer::new(qr_in_place_scratch::<T>(side, side, block, Par::Seq, Spec::default()));
    qr_in_place(factors.as_mut(), coefficients.as_mut(), Par::Seq, MemStack::new(&mut memory), Spec::default());
    let mut q = Mat::identity(side, side);
    let mut memory = MemBuffer::new(apply_scratch::<T>(side, block, side));
    apply(factors.as_ref(), coefficients.as_ref(), Conj::No, q.as_mut(), Par::Seq, MemStack::new(&mut memory));
    q
}
