//! Fast, complete optimizers for [candle](candle_core).
//!
//! ```text
//! gradients -> clip -> rule.direction -> apply (lr from the schedule, weight decay) -> parameters
//! ```
//!
//! A step updates all parameters in one pass, which uses every core. Each rule is one short formula that is written once: the CPU
//! runs it, and the kernels for GPUs are printed from it. Those kernels have not run on a GPU yet.
//!
//! # In place of candle's optimizers
//!
//! Change the import. The calls stay as they are.
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
//! `candle_nn::SGD::new(vars, lr)` becomes `Sgd::new(vars, rules::Sgd { lr, ..Default::default() })`.
//!
//! An optimizer without any variable is an error here, where candle's steps for ever and moves nothing. Make it after the model.
//!
//! # Beyond them
//!
//! - [`FusedOptimizer::named`] keeps state by the names of a `VarMap`. Only so can [`FusedOptimizer::state_dict`] save it.
//! - A [`Group`] has its own hyperparameters and [`Schedule`]s. [`exclude_from_decay`] makes the usual two groups.
//! - [`FusedOptimizer::set_schedule`] gives all groups a schedule.
//! - [`FusedOptimizer::set_clip`] limits the gradients.
//! - [`FusedOptimizer::accumulate`] adds up the gradients of micro-batches.
//! - [`FusedOptimizer::freeze`] leaves parameters out.
//! - [`FusedOptimizer::set_master_copies`] keeps bf16 and f16 parameters in f32 too.
//! - [`Sam`] goes around any rule, and so does [`Lookahead`].
//! - [`FusedOptimizer::set_average`] keeps an [`Average`] of the weights. [`FusedOptimizer::eval`] swaps it in.
//! - [`by_name`] chooses a rule at run time, as [`AnyOptimizer`].
//! - [`recipes`] has settings that are used together.
//!
//! A call that fails leaves parameters and optimizer as they were.
//!
//! ```
//! use candle_nn::VarMap;
//! use optim::{AnyOptimizer, Clip, by_name};
//!
//! # fn main() -> optim::Result<()> {
//! # let varmap = VarMap::new();
//! # varmap.get(3, "weight", candle_nn::Init::Const(0.), candle_core::DType::F32, &candle_core::Device::Cpu)?;
//! let mut optimizer = AnyOptimizer::named(&varmap, by_name("sam:base=adamw,rho=0.1,weight_decay=0.05")?)?;
//! optimizer.set_schedule("lr", &"warmup_cosine:lr=3e-4,warmup=100,min_lr=0,steps=10000".parse()?)?;
//! optimizer.set_clip(Some(Clip::GlobalNorm(1.0)))?;
//! # Ok(()) }
//! ```
//!
//! # A rule of your own
//!
//! See the module [`rule`].

// The checks of devices name this crate as its users do.
#[cfg(test)]
extern crate self as optim;

mod backend;
mod error;
pub mod files;
mod formula;
pub mod matrix;
mod optimizer;
pub mod recipes;
pub mod rule;
pub mod rules;
pub mod schedule;
pub mod text;
mod wrappers;

pub use candle_nn::Optimizer;
pub use error::{Error, Result};
pub use optimizer::{
    Average, Clip, EmaWarmup, FusedOptimizer, Group, Lookahead, StateDict, exclude_from_decay, global_norm,
    named_params,
};
pub use rule::{AnyRule, Rule, Value};
pub use rules::by_name;
pub use schedule::Schedule;

/// The hyperparameters of [`AdamW`], by the name that candle has for them.
pub type ParamsAdamW = rules::AdamW;

/// [`rules::Sgd`] applied to parameters.
pub type Sgd = FusedOptimizer<rules::Sgd>;
/// [`rules::Asgd`] applied to parameters.
pub type Asgd = FusedOptimizer<rules::Asgd>;
/// [`rules::Rprop`] applied to parameters.
pub type Rprop = FusedOptimizer<rules::Rprop>;
/// [`rules::Adagrad`] applied to parameters.
pub type Adagrad = FusedOptimizer<rules::Adagrad>;
/// [`rules::Adadelta`] applied to parameters.
pub type Adadelta = FusedOptimizer<rules::Adadelta>;
/// [`rules::RmsProp`] applied to parameters.
pub type RmsProp = FusedOptimizer<rules::RmsProp>;
/// [`rules::Adam`] applied to parameters.
pub type Adam = FusedOptimizer<rules::Adam>;
/// [`rules::Adamax`] applied to parameters.
pub type Adamax = FusedOptimizer<rules::Adamax>;
/// [`rules::AmsGrad`] applied to parameters.
pub type AmsGrad = FusedOptimizer<rules::AmsGrad>;
/// [`rules::AdamW`] applied to parameters.
pub type AdamW = FusedOptimizer<rules::AdamW>;
/// [`rules::NAdam`] applied to parameters.
pub type NAdam = FusedOptimizer<rules::NAdam>;
/// [`rules::RAdam`] applied to parameters.
pub type RAdam = FusedOptimizer<rules::RAdam>;
/// [`rules::Lion`] applied to parameters.
pub type Lion = FusedOptimizer<rules::Lion>;
/// [`rules::Sophia`] applied to parameters.
pub type Sophia = FusedOptimizer<rules::Sophia>;
/// [`rules::ScheduleFreeSgd`] applied to parameters.
pub type ScheduleFreeSgd = FusedOptimizer<rules::ScheduleFreeSgd>;
/// [`rules::ScheduleFreeAdamW`] applied to parameters.
pub type ScheduleFreeAdamW = FusedOptimizer<rules::ScheduleFreeAdamW>;
/// [`rules::Prodigy`] applied to parameters.
pub type Prodigy = FusedOptimizer<rules::Prodigy>;
/// [`rules::Lbfgs`] applied to parameters.
pub type Lbfgs = FusedOptimizer<rules::Lbfgs>;
/// [`rules::Lamb`] applied to parameters.
pub type Lamb = FusedOptimizer<rules::Lamb>;
/// [`rules::Lars`] applied to parameters.
pub type Lars = FusedOptimizer<rules::Lars>;
/// [`rules::Signum`] applied to parameters.
pub type Signum = FusedOptimizer<rules::Signum>;
/// [`rules::Tiger`] applied to parameters.
pub type Tiger = FusedOptimizer<rules::Tiger>;
/// [`rules::AdaBelief`] applied to parameters.
pub type AdaBelief = FusedOptimizer<rules::AdaBelief>;
/// [`rules::Yogi`] applied to parameters.
pub type Yogi = FusedOptimizer<rules::Yogi>;
/// [`rules::LaProp`] applied to parameters.
pub type LaProp = FusedOptimizer<rules::LaProp>;
/// [`rules::Adopt`] applied to parameters.
pub type Adopt = FusedOptimizer<rules::Adopt>;
/// [`rules::StableAdamW`] applied to parameters.
pub type StableAdamW = FusedOptimizer<rules::StableAdamW>;
/// [`rules::Adan`] applied to parameters.
pub type Adan = FusedOptimizer<rules::Adan>;
/// [`rules::AdEmaMix`] applied to parameters.
pub type AdEmaMix = FusedOptimizer<rules::AdEmaMix>;
/// [`rules::Mars`] applied to parameters.
pub type Mars = FusedOptimizer<rules::Mars>;
/// [`rules::Adafactor`] applied to parameters.
pub type Adafactor = FusedOptimizer<rules::Adafactor>;
/// [`rules::Muon`] applied to parameters.
pub type Muon = FusedOptimizer<rules::Muon>;
/// [`rules::NorMuon`] applied to parameters.
pub type NorMuon = FusedOptimizer<rules::NorMuon>;
/// [`rules::AdaMuon`] applied to parameters.
pub type AdaMuon = FusedOptimizer<rules::AdaMuon>;
/// [`rules::Soap`] applied to parameters.
pub type Soap = FusedOptimizer<rules::Soap>;
/// [`rules::Shampoo`] applied to parameters.
pub type Shampoo = FusedOptimizer<rules::Shampoo>;
/// [`rules::Sam`] around the rule `B`, applied to parameters.
pub type Sam<B> = FusedOptimizer<rules::Sam<B>>;
/// A rule chosen at run time, applied to parameters.
pub type AnyOptimizer = FusedOptimizer<AnyRule>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
