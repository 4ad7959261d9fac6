//! Reproducible comparisons of optimizers.
