//! The nearest orthogonal matrix, almost, by a few matrix products.

use crate::error::Result;
use crate::matrix::elementwise::{norm, number, over_norm, with_values};
use crate::matrix::multiply::{Multiply, Number};
use crate::matrix::product::{Factor, Product};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor, WithDType};
use faer::MatRef;
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// The coefficients (a, b, c) of each step `X = a X + (b A + c A^2) X`, `A = X X^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coefficients {
    /// Jordan's (2024), the same for all five steps: singular values end between 0.7 and 1.2.
    Jordan,
    /// One set per step, found by Su (2025): they end closer to 1.
    Quintic,
    /// Polar Express (Amsel et al. 2025, arXiv:2505.16932): the best for each step.
    PolarExpress,
}

impl Coefficients {
    /// Those of each step.
    pub const fn steps(self) -> [(f64, f64, f64); 5] {
        match self {
            Self::Jordan => [(3.4445, -4.7750, 2.0315); 5],
            Self::Quintic => [
                (4.0848, -6.8946, 2.9270),
                (3.9505, -6.3029, 2.6377),
                (3.7418, -5.5913, 2.3037),
                (2.8769, -3.1427, 1.2046),
                (2.8366, -3.0525, 1.2012),
            ],
            Self::PolarExpress => [
                (8.156554524902461, -22.48329292557795, 15.878769915207462),
                (4.042929935166739, -2.808917465908714, 0.5000178451051316),
                (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
            ],
        }
    }

    /// What the matrix is divided by at first: the first of these times its Frobenius norm, plus the second.
    const fn divisor(self) -> (f64, f64) {
        match self {
            Self::Jordan | Self::Quintic => (1.0, 1e-7),
            Self::PolarExpress => (1.02, 1e-6),
        }
    }
}

/// For each matrix of a stack `[n, rows, columns]` with the singular value decomposition `U S V^T`, nearly `U V^T`: five steps of the
/// Newton-Schulz iteration with polynomials of degree five (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>).
///
/// Where one side is much longer than the other the steps are those of the Gram matrix, `X X^T` or `X^T X`, and `X` is multiplied
/// once at the end: the same polynomials, with a third of the operations for 1:4. `f32` is then exact to about 1e-3 of the largest
/// singular value.
///
/// `products` is the type of the products of a stack in `f32`: on a GPU `BF16` is many times as fast, and what others compute in. All
/// else is computed in the stack's type; so is everything on the CPU, where `BF16` would be slower. In `BF16` the steps are the
/// standard's, since the Gram matrix is too far from the true one.
///
/// The result is multiplied by `scale`, at no cost.
///
/// Fails where the stack does not have three dimensions, or the device has no products of the type.
pub fn orthogonalise(stack: &Tensor, coefficients: Coefficients, products: DType, scale: f64) -> Result<Tensor> {
    let (_, rows, columns) = stack.dims3()?;
    let is_tall = rows > columns;
    Ok(match stack.dtype() {
        DType::F32 if stack.device().is_cpu() => on_cpu::<f32>(stack, coefficients, scale)?,
        DType::F64 if stack.device().is_cpu() => on_cpu::<f64>(stack, coefficients, scale)?,
        dtype => {
            let products = if dtype == DType::F32 { products } else { dtype };
            let (factor, eps) = coefficients.divisor();
            let x = over_norm(stack, factor, eps)?.to_dtype(products)?;
            let algebra = ByCandle { is_tall };
            let (z, x) = if products != DType::BF16 && is_long(rows, columns) {
                (on_gram(&algebra, &x, coefficients, 1.0)?, x)
            } else {
                let (z, before, _) = standard(&algebra, &x, coefficients, 1.0)?;
                (z, before.unwrap_or(x))
            };
            algebra.applied(&z, &x, scale)?.to_dtype(dtype)?
        }
    })
}

/// [`orthogonalise`] of a stack that nobody else has: on the CPU in its own memory.
pub(crate) fn orthogonalised(stack: Tensor, coefficients: Coefficients, products: DType, scale: f64) -> Result<Tensor> {
    if stack.device().is_cpu() && matches!(stack.dtype(), DType::F32 | DType::F64) {
        stack.inplace_op1(&InPlace { coefficients, scale })?;
        return Ok(stack);
    }
    orthogonalise(&stack, coefficients, products, scale)
}

/// Whether the iteration on the Gram matrix needs fewer multiplications. A symmetric result costs three fifths of another.
fn is_long(rows: usize, columns: usize) -> bool {
    let (short, long) = (rows.min(columns), rows.max(columns));
    // In units of short^2 / 5. Each step: X X^T, A^2, and the product with X.
    let standard = 5 * (3 * long + 3 * short + 5 * long);
    // X X^T once, 3 + 3 * 4 + 2 products of matrices that commute, and the product with X.
    let on_gram = 3 * long + 17 * 3 * short + 5 * long;
    on_gram < standard
}

/// The products that both iterations are made of, of matrices with rows and columns, or of stacks of them.
trait Algebra {
    type Matrix;
    /// `alpha X X^T`, or `alpha X^T X` where the rows are more.
    fn gram(&self, x: &Self::Matrix, alpha: f64) -> Result<Self::Matrix>;
    /// `a I + b R + c R^2`
    fn polynomial(&self, coefficients: (f64, f64, f64), r: &Self::Matrix) -> Result<Self::Matrix>;
    /// The product of two symmetric matrices that commute, as polynomials of one matrix do: so it is symmetric.
    fn commuting(&self, a: &Self::Matrix, b: &Self::Matrix) -> Result<Self::Matrix>;
    /// `scale Z X`, or `scale X Z` where the rows are more.
    fn applied(&self, z: &Self::Matrix, x: &Self::Matrix, scale: f64) -> Result<Self::Matrix>;
}

/// The standard iteration of `factor X`, but for its last product: `Z`, what it is to be applied to where that is not `X`, and with
/// which factor.
fn standard<A: Algebra>(
    algebra: &A,
    x: &A::Matrix,
    coefficients: Coefficients,
    mut factor: f64,
) -> Result<(A::Matrix, Option<A::Matrix>, f64)> {
    let [steps @ .., last] = coefficients.steps();
    let mut before = None;
    for step in steps {
        let now = before.as_ref().unwrap_or(x);
        let z = algebra.polynomial(step, &algebra.gram(now, factor * factor)?)?;
        before = Some(algebra.applied(&z, now, factor)?);
        factor = 1.0;
    }
    let now = before.as_ref().unwrap_or(x);
    let z = algebra.polynomial(last, &algebra.gram(now, factor * factor)?)?;
    Ok((z, before, factor))
}

/// The product of all `Z`. With `R = X X^T` a step multiplies `X` by `Z = a I + b R + c R^2`, and so `R` by `Z` twice.
fn on_gram<A: Algebra>(algebra: &A, x: &A::Matrix, coefficients: Coefficients, factor: f64) -> Result<A::Matrix> {
    let [first, steps @ ..] = coefficients.steps();
    let mut r = algebra.gram(x, factor * factor)?;
    let mut z = algebra.polynomial(first, &r)?;
    let mut product = None;
    for step in steps {
        r = algebra.commuting(&algebra.commuting(&r, &z)?, &z)?;
        let next = algebra.polynomial(step, &r)?;
        product = Some(algebra.commuting(product.as_ref().unwrap_or(&z), &next)?);
        z = next;
    }
    Ok(product.unwrap_or(z))
}

/// Stacks, by candle's operations.
struct ByCandle {
    is_tall: bool,
}

impl Algebra for ByCandle {
    type Matrix = Tensor;

    fn gram(&self, x: &Tensor, alpha: f64) -> Result<Tensor> {
        let turned = Factor::transposed(x);
        let product = if self.is_tall { Product::of(turned, x) } else { Product::of(x, turned) };
        product.times(alpha).symmetric().compute()
    }
    fn polynomial(&self, (a, b, c): (f64, f64, f64), r: &Tensor) -> Result<Tensor> {
        Product::of(r, r).times(c).plus(b, r).plus_identity(a).symmetric().compute()
    }
    fn commuting(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Product::of(a, b).symmetric().compute()
    }
    fn applied(&self, z: &Tensor, x: &Tensor, scale: f64) -> Result<Tensor> {
        let product = if self.is_tall { Product::of(x, z) } else { Product::of(z, x) };
        product.times(scale).compute()
    }
}

/// Norms between which squares and their sums are numbers with full precision in f32. Others are brought to 1 before the first product.
const NORMS: std::ops::Range<f64> = 1e-12..1e15;

/// Each matrix for itself, so that its products find it in the cache.
fn on_cpu<T: Number>(stack: &Tensor, coefficients: Coefficients, scale: f64) -> Result<Tensor> {
    let (_, rows, columns) = stack.dims3()?;
    let mut out = vec![number::<T>(0.0); stack.elem_count()];
    if !out.is_empty() {
        let workspaces = Workspaces::default();
        with_values(stack, |values: &[T]| {
            let matrices = out.par_chunks_mut(rows * columns).zip(values.par_chunks(rows * columns));
            let one = |(out, values): (&mut [T], &[T])| {
                workspaces.lend(|free| of_one(Given { values, rows, columns }, coefficients, scale, free, out))
            };
            Ok(matrices.try_for_each(one)?)
        })?;
    }
    Ok(Tensor::from_vec(out, stack.dims(), stack.device())?)
}

/// The same, in the memory of the stack.
struct InPlace {
    coefficients: Coefficients,
    scale: f64,
}

impl InPlace {
    fn run<T: Number>(&self, stack: &mut [T], layout: &Layout) -> candle_core::Result<()> {
        let (_, rows, columns) = layout.shape().dims3()?;
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("a stack is not contiguous") };
        let workspaces = Workspaces::default();
        let one = |values: &mut [T]| {
            workspaces.lend(|free| {
                let mut out = taken(free, values.len());
                of_one(Given { values, rows, columns }, self.coefficients, self.scale, free, &mut out)?;
                values.copy_from_slice(&out);
                free.borrow_mut().push(out);
                Ok(())
            })
        };
        Ok(stack[start..end].par_chunks_mut((rows * columns).max(1)).try_for_each(one)?)
    }
}

impl InplaceOp1 for InPlace {
    fn name(&self) -> &'static str {
        "orthogonalise"
    }

    fn cpu_fwd(&self, stack: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match stack {
            CpuStorage::F32(stack) => self.run(stack, layout),
            CpuStorage::F64(stack) => self.run(stack, layout),
            other => candle_core::bail!("no products of {:?} on the CPU", other.dtype()),
        }
    }
}

/// Memory of the threads that make matrices orthogonal.
#[derive(Default)]
struct Workspaces<T>(Mutex<Vec<RefCell<Vec<Vec<T>>>>>);

impl<T> Workspaces<T> {
    fn lend(&self, work: impl FnOnce(&RefCell<Vec<Vec<T>>>) -> Result<()>) -> Result<()> {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = all().pop().unwrap_or_default();
        work(&free)?;
        all().push(free);
        Ok(())
    }
}

/// So many numbers, of any value, in memory that was written before where there is some.
fn taken<T: Number>(free: &RefCell<Vec<Vec<T>>>, len: usize) -> Vec<T> {
    let mut free = free.borrow_mut();
    let fits = free.iter().position(|values| values.len() == len);
    fits.map_or_else(|| vec![number(0.0); len], |at| free.swap_remove(at))
}

fn of_one<T: Number>(
    given: Given<'_, T>,
    coefficients: Coefficients,
    scale: f64,
    free: &RefCell<Vec<Vec<T>>>,
    out: &mut [T],
) -> Result<()> {
    let (length, eps) = coefficients.divisor();
    let norm = norm(given.values);
    let mut factor = 1.0 / (length * norm + eps);
    let algebra = OnCpu { free, is_tall: given.rows > given.columns };
    let is_long = is_long(given.rows, given.columns);
    let mut x = Matrix::Given(given);
    // Also NaN.
    if !NORMS.contains(&norm) {
        x = algebra.times(&x, factor);
        factor = 1.0;
    }
    let (z, before) = if is_long {
        (on_gram(&algebra, &x, coefficients, factor)?, None)
    } else {
        let (z, before, rest) = standard(&algebra, &x, coefficients, factor)?;
        factor = rest;
        (z, before)
    };
    algebra.apply(&z, before.as_ref().unwrap_or(&x), factor * scale, out);
    Ok(())
}

/// What is made orthogonal.
#[derive(Clone, Copy)]
struct Given<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
}

/// A matrix, row after row.
enum Matrix<'a, T> {
    Given(Given<'a, T>),
    /// Its memory is free again when it is dropped.
    Own {
        values: Vec<T>,
        rows: usize,
        columns: usize,
        free: &'a RefCell<Vec<Vec<T>>>,
    },
}

impl<T> Matrix<'_, T> {
    fn view(&self) -> MatRef<'_, T> {
        match self {
            Self::Given(Given { values, rows, columns }) => MatRef::from_row_major_slice(values, *rows, *columns),
            Self::Own { values, rows, columns, .. } => MatRef::from_row_major_slice(values, *rows, *columns),
        }
    }
    fn values(&self) -> &[T] {
        match self {
            Self::Given(given) => given.values,
            Self::Own { values, .. } => values,
        }
    }
}

impl<T> Drop for Matrix<'_, T> {
    fn drop(&mut self) {
        if let Self::Own { values, free, .. } = self {
            free.borrow_mut().push(std::mem::take(values));
        }
    }
}

/// One matrix on the CPU.
struct OnCpu<'a, T> {
    /// Memory that no matrix has: pages that were written once are not asked for again.
    free: &'a RefCell<Vec<Vec<T>>>,
    is_tall: bool,
}

impl<'a, T: Number> OnCpu<'a, T> {
    /// A matrix with any numbers.
    fn matrix(&self, rows: usize, columns: usize) -> Matrix<'a, T> {
        Matrix::Own { values: taken(self.free, rows * columns), rows, columns, free: self.free }
    }

    /// A matrix that `write` fills.
    fn filled(&self, rows: usize, columns: usize, write: impl FnOnce(&mut [T])) -> Matrix<'a, T> {
        let mut matrix = self.matrix(rows, columns);
        if let Matrix::Own { values, .. } = &mut matrix {
            write(values);
        }
        matrix
    }

    fn times(&self, x: &Matrix<'_, T>, factor: f64) -> Matrix<'a, T> {
        let (from, view) = (x.values(), x.view());
        self.filled(view.nrows(), view.ncols(), |out| {
            out.iter_mut().zip(from).for_each(|(out, x)| *out = number(WithDType::to_f64(*x) * factor));
        })
    }

    fn symmetric(&self, product: Multiply<'_, T>, a: MatRef<'_, T>, b: MatRef<'_, T>) -> Matrix<'a, T> {
        self.filled(a.nrows(), a.nrows(), |out| product.run(out, a, b))
    }

    fn apply(&self, z: &Matrix<'_, T>, x: &Matrix<'_, T>, scale: f64, out: &mut [T]) {
        let product = Multiply { alpha: scale, plus: None, shift: 0.0, is_symmetric: false };
        let (z, x) = (z.view(), x.view());
        if self.is_tall { product.run(out, x, z) } else { product.run(out, z, x) }
    }
}

impl<'a, T: Number> Algebra for OnCpu<'a, T> {
    type Matrix = Matrix<'a, T>;

    fn gram(&self, x: &Matrix<'a, T>, alpha: f64) -> Result<Matrix<'a, T>> {
        let (x, product) = (x.view(), Multiply { alpha, plus: None, shift: 0.0, is_symmetric: true });
        let (a, b) = if self.is_tall { (x.transpose(), x) } else { (x, x.transpose()) };
        Ok(self.symmetric(product, a, b))
    }
    fn polynomial(&self, (a, b, c): (f64, f64, f64), r: &Matrix<'a, T>) -> Result<Matrix<'a, T>> {
        let product = Multiply { alpha: c, plus: Some((b, r.values())), shift: a, is_symmetric: true };
        Ok(self.symmetric(product, r.view(), r.view()))
    }
    fn commuting(&self, a: &Matrix<'a, T>, b: &Matrix<'a, T>) -> Result<Matrix<'a, T>> {
        let product = Multiply { alpha: 1.0, plus: None, shift: 0.0, is_symmetric: true };
        Ok(self.symmetric(product, a.view(), b.view()))
    }
    fn applied(&self, z: &Matrix<'a, T>, x: &Matrix<'a, T>, scale: f64) -> Result<Matrix<'a, T>> {
        let view = x.view();
        Ok(self.filled(view.nrows(), view.ncols(), |out| self.apply(z, x, scale, out)))
    }
}
