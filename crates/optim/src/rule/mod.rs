//! How a rule is written: what its file declares, and what derives from it.
//!
//! A rule is a struct of hyperparameters and a pure function from gradient and state to a **direction**
//! ([`Elementwise::direction`]). The optimizer does the rest: it clips the gradient, adds the weight decay, multiplies by the
//! learning rate and writes the parameter.

pub(crate) mod contract;
pub(crate) mod declare;
pub(crate) mod value;

pub use crate::backend::kernel::{Direction, Kernel};
pub use crate::formula::decay::Decay;
pub use crate::formula::elementwise::Elementwise;
pub use crate::formula::real::Real;
pub use crate::formula::slots::{Array, MAX_SLOTS, Slots};
pub use crate::formula::trace::{Expr, header};
pub use crate::formula::trust_ratio::TrustRatio;
pub use contract::{AnyRule, OneKernelRule, Rule, Sharpness};
pub use declare::{Hyperparameters, Spec};
pub use value::{FRACTION, Hyperparameter, NON_NEGATIVE, Range, Value};
