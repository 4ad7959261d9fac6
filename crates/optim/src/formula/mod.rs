//! Formulas: the number types that they are evaluated in, their contract, weight decay, and their print as C++.

pub(crate) mod decay;
pub(crate) mod elementwise;
pub(crate) mod real;
pub(crate) mod slots;
pub(crate) mod sums;
pub(crate) mod trace;
