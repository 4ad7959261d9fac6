//! The heads of attention.

use super::error::fail;
use candle_core::Result;

/// How rows are divided into windows, and their columns into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads.
    pub heads: usize,
    /// Rows of a window.
    pub context: usize,
}

impl Heads {
    /// Checks the shape (rows, columns) of queries, keys and values; the number of columns of a head.
    pub(crate) fn head_width(self, rows: usize, columns: usize) -> Result<usize> {
        let Self { heads, context } = self;
        if heads == 0 || context == 0 || !rows.is_multiple_of(context) || !columns.is_multiple_of(3 * heads) {
            fail!(
                "causal_attention: qkv [{rows}, {columns}] must have a multiple of {context} rows (windows) and of 3 x {heads} \
                 columns (queries, keys and values of each head), and both numbers must be at least 1"
            );
        }
        Ok(columns / (3 * heads))
    }
}
