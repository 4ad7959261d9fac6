//! Reproducible comparisons of optimizers.

pub mod data;
