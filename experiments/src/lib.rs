//! Reproducible comparisons of optimizers.
//!
//! ```text
//! config -> data + model -> train -> records (jsonl) -> statistics -> report
//! ```
//!
//! A binary is a short table of what it compares, a [`Study`], and a call of [`main`]. All binaries have the same
//! [`Options`] and write the same records ([`record`]).
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `hub` (default) | data sets from the Hugging Face Hub; without it they come from files (`--data-dir`), and a clean build is a minute shorter |
//! | `cuda` | training on NVIDIA's GPUs (CUDA 13) |
//! | `cudnn` | `cuda`, with the convolutions of cuDNN 9 |
//! | `metal` | training on Apple's GPUs |
//!
//! The programs need Rust 1.95, because hf-hub does; the libraries `optim` and `ops` need 1.90.

pub mod config;
pub mod problem;
pub mod program;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;

pub use config::{
    choice::Choice,
    group::GroupConfig,
    options::{Norm, Options, Settings},
    study::{Compared, First, Study},
    targets::Targets,
};
pub use program::{
    compare::main,
    exit::{fail, print, usage},
};
