//! The one product: `alpha A B + beta C + shift I`, on stacks of matrices.

use crate::error::Result;
use crate::matrix::elementwise::{number, with_values};
use crate::matrix::multiply::{Multiply, Number};
use candle_core::{DType, Tensor};
use faer::MatRef;
use rayon::prelude::*;

/// A stack `[n, rows, columns]` as a factor: as it is, or each matrix transposed.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    stack: &'a Tensor,
    is_transposed: bool,
}

impl<'a> From<&'a Tensor> for Factor<'a> {
    fn from(stack: &'a Tensor) -> Self {
        Self { stack, is_transposed: false }
    }
}

impl<'a> Factor<'a> {
    /// Each matrix of the stack transposed.
    pub fn transposed(stack: &'a Tensor) -> Self {
        Self { stack, is_transposed: true }
    }

    /// How many matrices, and their rows and columns.
    fn dims(&self) -> candle_core::Result<[usize; 3]> {
        let (count, rows, columns) = self.stack.dims3()?;
        Ok(if self.is_transposed { [count, columns, rows] } else { [count, rows, columns] })
    }

    /// One of the matrices, of which `values` has all.
    fn matrix<'v, T>(&self, values: &'v [T], index: usize, [_, rows, columns]: [usize; 3]) -> MatRef<'v, T> {
        let values = &values[index * rows * columns..][..rows * columns];
        if self.is_transposed {
            MatRef::from_column_major_slice(values, rows, columns)
        } else {
            MatRef::from_row_major_slice(values, rows, columns)
        }
    }

    fn view(&self) -> candle_core::Result<Tensor> {
        if self.is_transposed { self.stack.t() } else { Ok(self.stack.clone()) }
    }
}

/// `alpha A B + beta C + shift I` for each matrix of the stacks A `[n, rows, inner]`, B `[n, inner, columns]` and C `[n, rows,
/// columns]`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use optim::matrix::{Factor, Product};
/// let x = Tensor::new(&[[[1f32, 2.0], [3.0, 4.0]]], &Device::Cpu)?;
/// let gram = Product::of(&x, Factor::transposed(&x)).symmetric().compute()?;
/// assert_eq!(gram.to_vec3::<f32>()?, [[[5.0, 11.0], [11.0, 25.0]]]);
/// # Ok::<(), optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    a: Factor<'a>,
    b: Factor<'a>,
    alpha: f64,
    plus: Option<(f64, &'a Tensor)>,
    shift: f64,
    is_symmetric: bool,
}

impl<'a> Product<'a> {
    /// `A B`
    pub fn of(a: impl Into<Factor<'a>>, b: impl Into<Factor<'a>>) -> Self {
        Self { a: a.into(), b: b.into(), alpha: 1.0, plus: None, shift: 0.0, is_symmetric: false }
    }

    /// `alpha A B`
    pub fn times(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Adds `beta C`.
    pub fn plus(self, beta: f64, c: &'a Tensor) -> Self {
        Self { plus: Some((beta, c)), ..self }
    }

    /// Adds `shift` to the diagonal.
    pub fn plus_identity(self, shift: f64) -> Self {
        Self { shift, ..self }
    }

    /// Says that the result is symmetric: the CPU computes what is on the diagonal and below, and copies the rest.
    pub fn symmetric(self) -> Self {
        Self { is_symmetric: true, ..self }
    }

    /// The result, a stack `[n, rows, columns]`. Fails where shapes, types or devices do not fit.
    pub fn compute(&self) -> Result<Tensor> {
        let (a, b) = (self.a.dims()?, self.b.dims()?);
        let out = [a[0], a[1], b[2]];
        let is_square = !self.is_symmetric && self.shift == 0.0 || out[1] == out[2];
        if b[..2] != [a[0], a[2]] || !is_square || self.plus.is_some_and(|(_, c)| c.dims() != out) {
            let c = self.plus.map(|(_, c)| c.dims());
            return Err(candle_core::Error::Msg(format!(
                "a product of stacks of matrices: {a:?} by {b:?} and {c:?} do not fit"
            ))
            .into());
        }
        let result = match self.a.stack.dtype() {
            DType::F32 if self.a.stack.device().is_cpu() => self.on_cpu::<f32>(a, b, out),
            DType::F64 if self.a.stack.device().is_cpu() => self.on_cpu::<f64>(a, b, out),
            _ => self.by_candle(out),
        };
        Ok(result?)
    }

    fn by_candle(&self, out: [usize; 3]) -> candle_core::Result<Tensor> {
        let mut result = self.a.view()?.matmul(&self.b.view()?)?;
        if self.alpha != 1.0 {
            result = (result * self.alpha)?;
        }
        if let Some((beta, c)) = self.plus {
            result = (result + (c * beta)?)?;
        }
        if self.shift != 0.0 {
            let identity = Tensor::eye(out[1], result.dtype(), result.device())?;
            result = result.broadcast_add(&(identity * self.shift)?)?;
        }
        Ok(result)
    }

    fn on_cpu<T: Number>(
        &self,
        a_dims: [usize; 3],
        b_dims: [usize; 3],
        out: [usize; 3],
    ) -> candle_core::Result<Tensor> {
        let [_, rows, columns] = out;
        let mut values = vec![number::<T>(0.0); out.iter().product()];
        if !values.is_empty() {
            let of = |c: Option<&[T]>, values: &mut [T], a: &[T], b: &[T]| {
                values.par_chunks_mut(rows * columns).enumerate().for_each(|(index, values)| {
                    let c = c.map(|c| &c[index * rows * columns..][..rows * columns]);
                    let product = Multiply {
                        alpha: self.alpha,
                        plus: self.plus.map(|(beta, _)| beta).zip(c),
                        shift: self.shift,
                        is_symmetric: self.is_symmetric,
                    };
                    product.run(values, self.a.matrix(a, index, a_dims), self.b.matrix(b, index, b_dims));
                });
                Ok(())
            };
            with_values(self.a.stack, |a: &[T]| {
                with_values(self.b.stack, |b: &[T]| match self.plus {
                    Some((_, c)) => with_values(c, |c: &[T]| of(Some(c), &mut values, a, b)),
                    None => of(None, &mut values, a, b),
                })
            })?;
        }
        Tensor::from_vec(values, &out[..], self.a.stack.device())
    }
}
