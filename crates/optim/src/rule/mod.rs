//! The contract of a rule.

mod contract;

pub(crate) use contract::hyperparameters;
pub use contract::*;
