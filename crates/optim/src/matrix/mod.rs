//! Whole matrices: products, orthogonalisation and decompositions of stacks `[n, rows, columns]`, for rules that see a parameter as
//! a matrix.
//!
//! They work in `f32` and `f64` on every device that candle has. On the CPU the same values give the same bits for any number of
//! threads.

pub(crate) mod decompose;
pub(crate) mod elementwise;
mod multiply;
pub(crate) mod newton_schulz;
pub(crate) mod product;
mod tiles;

pub use decompose::{eigenvectors, inverse_root, qr};
pub use elementwise::weighted_sum;
pub use newton_schulz::{Coefficients, orthogonalise};
pub use product::{Factor, Product};
