//! A matrix on the CPU, cut into tiles, each for one thread. Where the cuts are depends on the matrix's shape alone.

use faer::reborrow::*;
use faer::{MatMut, MatRef};

/// A part of a matrix.
pub(crate) struct Tile<'a, T> {
    /// Its first row.
    pub(crate) row: usize,
    /// Its first column.
    pub(crate) column: usize,
    pub(crate) values: MatMut<'a, T>,
    /// In a symmetric matrix, the mirror image of a tile below the diagonal.
    pub(crate) above: Option<MatMut<'a, T>>,
}

/// Rows and columns of a tile: its operands fit in a core's cache, and its product runs as fast as that of a large matrix.
const EDGE: usize = 256;
/// Of a symmetric matrix those on and below the diagonal are computed. Small tiles waste less on the diagonal; large ones read their
/// operands less often, which shows where there are many.
const SYMMETRIC_EDGE: usize = 128;
const SMALL_SYMMETRIC_EDGE: usize = 64;

/// All tiles of a matrix.
pub(crate) fn tiles<T>(values: &mut [T], rows: usize, columns: usize) -> Vec<Tile<'_, T>> {
    let mut tiles = Vec::new();
    for (i, strip) in grid(values, rows, columns, EDGE).into_iter().enumerate() {
        for (j, values) in strip.into_iter().enumerate() {
            tiles.push(Tile { row: i * EDGE, column: j * EDGE, values, above: None });
        }
    }
    tiles
}

/// Of a symmetric matrix: the tiles on the diagonal, and those below with their mirror images.
pub(crate) fn symmetric_tiles<T>(values: &mut [T], rows: usize) -> Vec<Tile<'_, T>> {
    let edge = if rows <= 2 * SYMMETRIC_EDGE { SMALL_SYMMETRIC_EDGE } else { SYMMETRIC_EDGE };
    let mut tiles = Vec::new();
    // What is left of each strip so far: its tiles right of the diagonal that have no mirror image yet.
    let mut right: Vec<std::vec::IntoIter<MatMut<'_, T>>> = Vec::new();
    for (i, strip) in grid(values, rows, rows, edge).into_iter().enumerate() {
        let mut strip = strip.into_iter();
        for (j, above) in right.iter_mut().enumerate() {
            let (Some(values), above) = (strip.next(), above.next()) else { continue };
            tiles.push(Tile { row: i * edge, column: j * edge, values, above });
        }
        let on_diagonal = strip.next();
        tiles.extend(on_diagonal.map(|values| Tile { row: i * edge, column: i * edge, values, above: None }));
        right.push(strip);
    }
    tiles
}

/// A matrix in tiles of `edge` rows and columns, or what is left of them at its ends.
fn grid<T>(values: &mut [T], rows: usize, columns: usize, edge: usize) -> Vec<Vec<MatMut<'_, T>>> {
    let mut rest = MatMut::from_row_major_slice_mut(values, rows, columns);
    let mut grid = Vec::new();
    while rest.nrows() > 0 {
        let height = edge.min(rest.nrows());
        let (mut strip, below) = rest.split_at_row_mut(height);
        rest = below;
        let mut tiles = Vec::new();
        while strip.ncols() > 0 {
            let width = edge.min(strip.ncols());
            let (tile, right) = strip.split_at_col_mut(width);
            strip = right;
            tiles.push(tile);
        }
        grid.push(tiles);
    }
    grid
}

/// One row of a tile, which lies in one piece.
pub(crate) fn row<'a, T>(values: &'a mut MatMut<'_, T>, i: usize) -> &'a mut [T] {
    values.rb_mut().row_mut(i).try_as_row_major_mut().map(|row| row.as_slice_mut()).unwrap_or_default()
}

/// Rows and columns that are transposed at a time.
const BLOCK: usize = 16;

/// A block, transposed.
struct Block<T>([[T; BLOCK]; BLOCK]);

impl<T: Copy + Default> Block<T> {
    /// That of at most `BLOCK` rows and columns.
    fn read(from: MatRef<'_, T>) -> Self {
        let mut block = Self([[T::default(); BLOCK]; BLOCK]);
        for i in 0..from.nrows() {
            let row = from.row(i).try_as_row_major().map(|row| row.as_slice()).unwrap_or_default();
            for (to, value) in block.0.iter_mut().zip(row) {
                to[i] = *value;
            }
        }
        block
    }

    fn write(&self, mut to: MatMut<'_, T>) {
        let columns = to.ncols();
        for (j, values) in self.0.iter().enumerate().take(to.nrows()) {
            row(&mut to, j).copy_from_slice(&values[..columns]);
        }
    }
}

/// Writes `from`, transposed, to `to`. In blocks, so that no cache line is fetched for one number.
pub(crate) fn transpose<T: Copy + Default>(from: MatRef<'_, T>, mut to: MatMut<'_, T>) {
    for i in (0..from.nrows()).step_by(BLOCK) {
        for j in (0..from.ncols()).step_by(BLOCK) {
            let (rows, columns) = (BLOCK.min(from.nrows() - i), BLOCK.min(from.ncols() - j));
            let block = Block::read(from.submatrix(i, j, rows, columns));
            block.write(to.rb_mut().submatrix_mut(j, i, columns, rows));
        }
    }
}

/// Copies what is below the diagonal of a square tile to above it.
pub(crate) fn mirror<T: Copy + Default>(matrix: MatMut<'_, T>) {
    let mut rest = matrix;
    while rest.nrows() > 1 {
        let edge = BLOCK.min(rest.nrows());
        let (mut on_diagonal, above, below, next) = rest.split_at_mut(edge, edge);
        for i in 0..edge {
            for j in 0..i {
                on_diagonal[(j, i)] = on_diagonal[(i, j)];
            }
        }
        transpose(below.rb(), above);
        rest = next;
    }
}
