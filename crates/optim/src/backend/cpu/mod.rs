//! Updates on the CPU.

pub(crate) mod loops;
pub(crate) mod numbers;
pub(crate) mod operands;
mod share;
pub(crate) mod step;
