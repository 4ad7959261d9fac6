//! How a rule is written: what its file declares, and what derives from it.
//!
//! A rule is a struct of hyperparameters and a pure function from gradient and state to a **direction**,
//! [`Elementwise::direction`]. The optimizer does the rest. It clips the gradient, adds the weight decay, multiplies by the learning
//! rate and writes the parameter.
//!
//! The function is written once, for any number type [`Real`]. The CPU runs it in `f32` and `f64`. [`Expr`] records it, and
//! [`header`] prints it as C++ for the GPU.
//!
//! - A rule whose flags do not change its state implements [`Hyperparameters`], [`Elementwise`] and [`OneKernelRule`]. It gets
//!   [`Rule`] from them.
//! - A rule whose flags change its state, as momentum does in SGD, has a [`Kernel`] for each set of slots, and implements [`Rule`].
//!
//! A rule of your own runs on the CPU, and on Metal, which compiles its header where it runs. CUDA has kernels only for the rules of
//! this crate, which are built with it.
//!
//! ```
//! use candle_core::{Device, Var};
//! use optim::rule::{Elementwise, OneKernelRule, Progress, Real, hyperparameters};
//! use optim::{FusedOptimizer, Optimizer};
//!
//! hyperparameters! {
//!     /// The sign of the gradient (Bernstein et al. 2018, arXiv:1802.04434).
//!     pub struct SignSgd = "signsgd" {
//!         /// Learning rate.
//!         lr: 1e-3 in NON_NEGATIVE,
//!     }
//!     formula: "theta -= lr sign(g)"
//!     best_for: "an example"
//!     family: FirstOrder
//! }
//!
//! impl Elementwise for SignSgd {
//!     const NAME: &'static str = "signsgd";
//!     const SCALARS: &'static [&'static str] = &[];
//!     const SLOTS: &'static [&'static str] = &[];
//!     type Scalars<R: Real> = [R; 0];
//!     type State<R: Real> = [R; 0];
//!
//!     fn direction<R: Real>(_: [R; 0], grad: R, _param: R, _: [R; 0]) -> (R, [R; 0]) {
//!         (grad.sign(), [])
//!     }
//! }
//!
//! impl OneKernelRule for SignSgd {
//!     fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 0] {
//!         []
//!     }
//! }
//!
//! let w = Var::new(&[1f32, -2.0], &Device::Cpu)?;
//! let mut optimizer = FusedOptimizer::new(vec![w.clone()], SignSgd { lr: 0.5 })?;
//! optimizer.backward_step(&w.sqr()?.sum_all()?)?;
//! assert_eq!(w.to_vec1::<f32>()?, [0.5, -1.5]);
//! # Ok::<(), candle_core::Error>(())
//! ```

// Public for the macros, which name in a user's crate what they use.
#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod declare;
pub(crate) mod options;
pub(crate) mod progress;
#[doc(hidden)]
pub mod value;

pub use crate::backend::kernel::{Direction, Factors, Kernel, Measured};
pub use crate::formula::decay::Decay;
pub use crate::formula::elementwise::{Elementwise, Gives};
pub use crate::formula::real::Real;
pub use crate::formula::slots::{Array, MAX_SLOTS, Slots};
pub use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
pub use crate::formula::trace::{Expr, header};
pub use contract::{AnyRule, OneKernelRule, Rule, Sharpness, as_declared};
pub use declare::{Family, Hyperparameters, Spec, hyperparameters};
pub use options::Options;
pub use progress::Progress;
pub use value::{ABOVE_ONE, Allowed, FRACTION, Hyperparameter, NON_NEGATIVE, OPEN_FRACTION, Range, Value};
