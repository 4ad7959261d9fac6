//! The product of two matrices on the CPU, its tiles shared among threads.

use crate::matrix::elementwise::number;
use crate::matrix::tiles::{Tile, mirror, row, symmetric_tiles, tiles, transpose};
use candle_core::WithDType;
use faer::linalg::matmul::{
    matmul,
    triangular::{self, BlockStructure},
};
use faer::reborrow::*;
use faer::traits::RealField;
use faer::{Accum, MatRef, Par};
use rayon::prelude::*;

/// `f32` or `f64`.
pub(crate) trait Number: WithDType + RealField + Default {}

impl Number for f32 {}
impl Number for f64 {}

/// `alpha A B + beta C + shift I`
pub(crate) struct Multiply<'a, T> {
    pub(crate) alpha: f64,
    /// beta and C, row after row.
    pub(crate) plus: Option<(f64, &'a [T])>,
    pub(crate) shift: f64,
    /// The result is symmetric: half of it is computed.
    pub(crate) is_symmetric: bool,
}

/// A tile on the diagonal with more rows than this is computed by halves; below it that takes as long as the whole.
const HALVED: usize = 64;

impl<T: Number> Multiply<'_, T> {
    /// Writes the result to `out`, row after row.
    pub(crate) fn run(&self, out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
        let tiles = if self.is_symmetric { symmetric_tiles(out, a.nrows()) } else { tiles(out, a.nrows(), b.ncols()) };
        tiles.into_par_iter().for_each(|tile| self.fill(tile, a, b));
    }

    fn fill(&self, tile: Tile<'_, T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
        let Tile { row: first, column, mut values, above } = tile;
        let (rows, columns) = (values.nrows(), values.ncols());
        let accumulate = match self.plus {
            Some((beta, c)) => {
                let beta = number::<T>(beta);
                for i in 0..rows {
                    let c = &c[(first + i) * b.ncols() + column..][..columns];
                    row(&mut values, i).iter_mut().zip(c).for_each(|(value, c)| *value = beta * *c);
                }
                Accum::Add
            }
            None => Accum::Replace,
        };
        let (a, b) = (a.subrows(first, rows), b.subcols(column, columns));
        let is_on_diagonal = self.is_symmetric && first == column;
        if is_on_diagonal && rows > HALVED {
            let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
            triangular::matmul(values.rb_mut(), lower, accumulate, a, full, b, full, number(self.alpha), Par::Seq);
        } else {
            matmul(values.rb_mut(), accumulate, a, b, number::<T>(self.alpha), Par::Seq);
        }
        if self.shift != 0.0 {
            for i in first.max(column)..(first + rows).min(column + columns) {
                values[(i - first, i - column)] += number::<T>(self.shift);
            }
        }
        if is_on_diagonal {
            mirror(values);
        } else if let Some(above) = above {
            transpose(values.rb(), above);
        }
    }
}
