//! The heads of attention.

use super::error::fail;
use candle_core::Result;

/// How the rows of [`causal_attention`](crate::causal_attention()) are divided into windows, and their columns into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// How many heads there are, at least 1.
    pub heads: usize,
    /// How many rows a window has, at least 1.
    pub context: usize,
}

impl Heads {
    /// The number of columns of a head, of queries, keys and values of this shape, which it checks.
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
