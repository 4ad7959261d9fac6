//! The optimizer: groups of parameters, the step, accumulation, two-step rules, and state files.

mod accumulate;
mod average;
mod averaging;
mod candle;
mod clip;
mod curvature;
mod displacement;
mod fused;
mod groups;
mod lbfgs;
mod line_search;
mod matrix;
mod parameter;
mod phase;
mod quasi_newton;
mod sam;
mod save;
mod state_dict;
mod step;
#[cfg(test)]
mod tests;

pub use average::{Average, EmaWarmup, Lookahead};
pub use clip::{Clip, global_norm};
pub use fused::FusedOptimizer;
pub use groups::{Group, exclude_from_decay, named_params};
pub use state_dict::StateDict;
