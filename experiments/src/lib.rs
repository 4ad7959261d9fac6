//! Reproducible comparisons of optimizers.
//!
//! ```text
//! config -> data + model -> train -> records (jsonl) -> statistics -> report
//! ```
//!
//! A binary is a short table of what it compares, a [`Study`], and a call of [`main`]. All binaries have the same
//! [`Options`] and write the same records ([`record`]).

pub mod config;
pub mod problem;
pub mod program;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;

pub use config::{
    group::GroupConfig,
    options::{Norm, Options, Settings},
    study::Study,
    targets::Targets,
};
pub use program::{
    compare::main,
    exit::{fail, print, usage},
};
