//! The transforms of tiles, in vectors of channels.

use pulp::{Simd, WithSimd};

/// Elements of a transformed tile.
pub(super) const ELEMENTS: usize = 16;

/// How vectors of channels lie: that of the row `i` and the column `j` of a tile is at
/// `first + row r + column c + inside[0] i + inside[1] j`, where the tile is in the row `r` and the column `c` of all tiles.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) first: usize,
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) inside: [usize; 2],
}

#[derive(Clone, Copy)]
pub(super) enum Matrices {
    /// Pixels `d`, 4x4, to `B^T d B`.
    Input,
    /// Pixels `e` of the gradient by the output, 2x2, to `A e A^T`.
    OutputGradient,
    /// Elements `m`, 4x4, to `A^T m A`.
    Output,
}

/// Transforms the tiles of a vector of channels.
pub(super) struct Transform<'a> {
    pub(super) matrices: Matrices,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) from: (&'a [f32], Places),
    pub(super) to: (&'a mut [f32], Places),
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let add = |x, y| simd.add_f32s(x, y);
        let sub = |x, y| simd.sub_f32s(x, y);
        match self.matrices {
            // `B^T`: 1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1.
            Matrices::Input => self.tiles::<S, 4, 4>(simd, |[a, b, c, d]| [sub(a, c), add(b, c), sub(c, b), sub(b, d)]),
            // `A`: 1 0, 1 1, 1 -1, 0 -1.
            Matrices::OutputGradient => {
                self.tiles::<S, 2, 4>(simd, |[a, b]| [a, add(a, b), sub(a, b), simd.neg_f32s(b)]);
            }
            // `A^T`: 1 1 1 0, 0 1 -1 -1.
            Matrices::Output => {
                self.tiles::<S, 4, 2>(simd, |[a, b, c, d]| [add(add(a, b), c), sub(sub(b, c), d)]);
            }
        }
    }
}

impl Transform<'_> {
    /// Of N x N vectors to M x M: `by` of each column, then of each row.
    #[inline(always)]
    fn tiles<S: Simd, const N: usize, const M: usize>(self, simd: S, by: impl Fn([S::f32s; N]) -> [S::f32s; M]) {
        let ((from, at), (to, to_at)) = (self.from, self.to);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let from = &from[at.first + row * at.row + column * at.column..];
                let to = &mut to[to_at.first + row * to_at.row + column * to_at.column..];
                let mut columns = [[simd.splat_f32s(0.0); M]; N];
                for (j, column) in columns.iter_mut().enumerate() {
                    let mut vectors = [simd.splat_f32s(0.0); N];
                    for (i, vector) in vectors.iter_mut().enumerate() {
                        let from = &from[i * at.inside[0] + j * at.inside[1]..][..S::F32_LANES];
                        *vector = S::as_simd_f32s(from).0[0];
                    }
                    *column = by(vectors);
                }
                for i in 0..M {
                    let mut vectors = [simd.splat_f32s(0.0); N];
                    for (vector, column) in vectors.iter_mut().zip(&columns) {
                        *vector = column[i];
                    }
                    for (j, vector) in by(vectors).iter().enumerate() {
                        let to = &mut to[i * to_at.inside[0] + j * to_at.inside[1]..][..S::F32_LANES];
                        S::as_mut_simd_f32s(to).0[0] = *vector;
                    }
                }
            }
        }
    }
}
