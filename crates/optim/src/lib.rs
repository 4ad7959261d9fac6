//! Optimizers for candle: every rule is written once, and a step updates all parameters in one fused pass.
//!
//! ```text
//! gradients -> clip -> rule.direction -> apply (lr from the schedule, weight decay) -> parameters
//! ```
//!
//! # Instead of candle's optimizers
//!
//! Change the import, and the name of the configuration where there is one:
//!
//! ```
//! use candle_core::{DType, Device, Result, Tensor};
//! use candle_nn::{Module, VarBuilder, VarMap, linear, loss::mse};
//! use optim::{AdamW, Optimizer, ParamsAdamW}; // was: candle_nn::{AdamW, Optimizer, ParamsAdamW}
//!
//! # fn main() -> Result<()> {
//! let varmap = VarMap::new();
//! let model = linear(2, 1, VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu))?;
//! let (x, y) = (Tensor::new(&[[0f32, 1.], [2., 3.]], &Device::Cpu)?, Tensor::new(&[[1f32], [5.]], &Device::Cpu)?);
//!
//! let mut optimizer = AdamW::new(varmap.all_vars(), ParamsAdamW { lr: 0.1, ..Default::default() })?;
//! for _ in 0..500 {
//!     optimizer.backward_step(&mse(&model.forward(&x)?, &y)?)?;
//! }
//! assert!(mse(&model.forward(&x)?, &y)?.to_scalar::<f32>()? < 0.1);
//! # Ok(()) }
//! ```
//!
//! `candle_nn::SGD::new(vars, lr)` becomes `Sgd::new(vars, rules::Sgd { lr, ..Default::default() })`. An optimizer without any
//! variable is an error here, where candle's steps for ever and moves nothing: make it after the model.
//!
//! # Beyond them
//!
//! [`FusedOptimizer::named`] keeps state by the names of a `VarMap`, for [`FusedOptimizer::state_dict`]; [`Group`]s have their own
//! hyperparameters and [`Schedule`]s ([`exclude_from_decay`] makes the usual two); [`FusedOptimizer::set_clip`],
//! [`FusedOptimizer::accumulate`], [`FusedOptimizer::freeze`] and [`FusedOptimizer::set_master_copies`] do what their names say; [`Sam`] goes
//! around any rule. A call that fails leaves parameters and optimizer as they were. [`by_name`] chooses at run time:
//!
//! ```
//! use candle_nn::VarMap;
//! use optim::{AnyOptimizer, Clip, Group, Schedule, by_name, named_params};
//!
//! # fn main() -> optim::Result<()> {
//! # let varmap = VarMap::new();
//! let group = Group::new(named_params(&varmap), by_name("sam:base=adamw,rho=0.1,weight_decay=0.05")?)
//!     .schedule("lr", "warmup_cosine:lr=3e-4,warmup=100,min_lr=0,steps=10000".parse::<Schedule>()?)?;
//! let mut optimizer = AnyOptimizer::from_groups(vec![group])?;
//! optimizer.set_clip(Some(Clip::GlobalNorm(1.0)))?;
//! # Ok(()) }
//! ```

// The checks of devices name this crate as its users do.
#[cfg(test)]
extern crate self as optim;

mod backend;
mod error;
pub mod files;
mod formula;
mod grads;
mod group;
mod optimizer;
pub mod recipes;
pub mod rule;
pub mod rules;
pub mod schedule;
mod state;
pub mod text;
mod wrappers;

pub use candle_nn::Optimizer;
pub use error::{Error, Result};
pub use grads::{Clip, global_norm};
pub use group::{Group, exclude_from_decay, named_params};
pub use optimizer::FusedOptimizer;
pub use rule::{AnyRule, Rule, Value};
pub use rules::by_name;
pub use schedule::Schedule;
pub use state::StateDict;

/// The hyperparameters of [`AdamW`], by the name that candle has for them.
pub type ParamsAdamW = rules::AdamW;

/// [`rules::Sgd`] applied to parameters.
pub type Sgd = FusedOptimizer<rules::Sgd>;
/// [`rules::RmsProp`] applied to parameters.
pub type RmsProp = FusedOptimizer<rules::RmsProp>;
/// [`rules::Adam`] applied to parameters.
pub type Adam = FusedOptimizer<rules::Adam>;
/// [`rules::AmsGrad`] applied to parameters.
pub type AmsGrad = FusedOptimizer<rules::AmsGrad>;
/// [`rules::AdamW`] applied to parameters.
pub type AdamW = FusedOptimizer<rules::AdamW>;
/// [`rules::Lion`] applied to parameters.
pub type Lion = FusedOptimizer<rules::Lion>;
/// [`rules::Lamb`] applied to parameters.
pub type Lamb = FusedOptimizer<rules::Lamb>;
/// [`rules::Sam`] around the rule `B`, applied to parameters.
pub type Sam<B> = FusedOptimizer<rules::Sam<B>>;
/// A rule chosen at run time, applied to parameters.
pub type AnyOptimizer = FusedOptimizer<AnyRule>;
