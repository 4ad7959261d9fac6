//! What is learned: data sets, models, and the batches that one makes of the other.

pub mod batches;
pub mod data;
pub mod models;
pub mod prefetch;
