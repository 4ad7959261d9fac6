//! The nearest orthogonal matrix, almost, by a few matrix products.

use crate::error::Result;
use crate::matrix::elementwise::over_norm;
use crate::matrix::product::{Factor, Product};
use candle_core::{DType, Tensor};

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
    let (factor, eps) = coefficients.divisor();
    let has_choice = stack.dtype() == DType::F32 && !stack.device().is_cpu();
    let products = if has_choice { products } else { stack.dtype() };
    let x = over_norm(stack, factor, eps)?.to_dtype(products)?;
    let is_tall = rows > columns;
    let (short, long) = (rows.min(columns), rows.max(columns));
    let x = if products != DType::BF16 && gram_operations(short, long) < standard_operations(short, long) {
        on_gram(&x, is_tall, coefficients, scale)?
    } else {
        standard(x, is_tall, coefficients, scale)?
    };
    Ok(x.to_dtype(stack.dtype())?)
}

/// Multiplications of `standard`, in units of `short^2`. A symmetric result costs three fifths of another.
fn standard_operations(short: usize, long: usize) -> usize {
    // Each step: X X^T, A^2, and the product with X.
    5 * (3 * long + 3 * short + 5 * long)
}

/// Multiplications of `on_gram`, likewise.
fn gram_operations(short: usize, long: usize) -> usize {
    // X X^T once, 3 + 3 * 4 + 2 products of symmetric matrices that commute, and the product with X.
    3 * long + 17 * 3 * short + 5 * long
}

/// `X X^T`, or `X^T X` where the rows are more.
fn gram(x: &Tensor, is_tall: bool) -> Result<Tensor> {
    let product = if is_tall { Product::of(Factor::transposed(x), x) } else { Product::of(x, Factor::transposed(x)) };
    product.symmetric().compute()
}

/// `scale Z X`, or `scale X Z` where the rows are more.
fn applied(z: &Tensor, x: &Tensor, is_tall: bool, scale: f64) -> Result<Tensor> {
    let product = if is_tall { Product::of(x, z) } else { Product::of(z, x) };
    product.times(scale).compute()
}

/// `a I + b R + c R^2`
fn polynomial((a, b, c): (f64, f64, f64), r: &Tensor) -> Result<Tensor> {
    Product::of(r, r).times(c).plus(b, r).plus_identity(a).symmetric().compute()
}

/// Of two symmetric matrices that commute, as polynomials of one matrix do: so it is symmetric.
fn commuting(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Product::of(a, b).symmetric().compute()
}

fn standard(mut x: Tensor, is_tall: bool, coefficients: Coefficients, scale: f64) -> Result<Tensor> {
    let steps = coefficients.steps();
    for (i, step) in steps.into_iter().enumerate() {
        let scale = if i + 1 == steps.len() { scale } else { 1.0 };
        x = applied(&polynomial(step, &gram(&x, is_tall)?)?, &x, is_tall, scale)?;
    }
    Ok(x)
}

/// With `R = X X^T` a step multiplies `X` by `Z = a I + b R + c R^2`, and so `R` by `Z` twice; `Q` is the product of all `Z`.
fn on_gram(x: &Tensor, is_tall: bool, coefficients: Coefficients, scale: f64) -> Result<Tensor> {
    let steps = coefficients.steps();
    let mut r = gram(x, is_tall)?;
    let mut z = polynomial(steps[0], &r)?;
    let mut q = z.clone();
    for step in &steps[1..] {
        r = commuting(&commuting(&r, &z)?, &z)?;
        z = polynomial(*step, &r)?;
        q = commuting(&q, &z)?;
    }
    applied(&q, x, is_tall, scale)
}
