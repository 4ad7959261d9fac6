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
//! # A rule of your own
//!
//! This is a whole program, which needs the crates `optim` and `candle-core`. `tests/own_rule` in the project's checkout is it as a
//! crate; `experiments/examples/own_rule.rs` there adds a rule to the programs that compare.
//!
//! The rule runs on every device. CUDA has the kernels of this crate's rules from the build; that of your rule is compiled when it
//! first runs on a device, by the CUDA toolkit's NVRTC, which must be on the machine. Metal compiles all kernels in that way.
//!
//! ```
//! use candle_core::{Device, Var};
//! use optim::rule::{Elementwise, OneKernelRule, Progress, Real, hyperparameters};
//! use optim::{AnyOptimizer, Optimizer};
//!
//! hyperparameters! {
//!     /// Momentum, squashed to steps below the learning rate.
//!     pub struct SoftSign = "softsign" {
//!         /// Learning rate.
//!         lr: 1e-2 in NON_NEGATIVE,
//!         /// Decay rate of the mean of the gradient.
//!         beta1: 0.9 in FRACTION,
//!     }
//!     formula: "m = beta1 m + (1 - beta1) g; theta -= lr m / (1 + abs(m))"
//!     best_for: "an example"
//!     family: FirstOrder
//! }
//!
//! impl Elementwise for SoftSign {
//!     const NAME: &'static str = "softsign";
//!     const SCALARS: &'static [&'static str] = &["one_minus_beta1"];
//!     const SLOTS: &'static [&'static str] = &["exp_avg"];
//!     type Scalars<R: Real> = [R; 1];
//!     type State<R: Real> = [R; 1];
//!
//!     fn direction<R: Real>([rate]: [R; 1], grad: R, _param: R, [m]: [R; 1]) -> (R, [R; 1]) {
//!         let m = m.lerp(grad, rate);
//!         (m / (R::constant(1.0) + m.abs()), [m])
//!     }
//! }
//!
//! impl OneKernelRule for SoftSign {
//!     fn scalars(&self, _: &mut Progress<'_>) -> [f64; 1] {
//!         [1.0 - self.beta1]
//!     }
//! }
//!
//! fn main() -> optim::Result<()> {
//!     optim::rules::register::<SoftSign>()?;
//!     let w = Var::new(&[1f32, -2.0], &Device::Cpu)?;
//!     let mut optimizer = AnyOptimizer::new(vec![w.clone()], optim::by_name("softsign:lr=0.1")?)?;
//!     for _ in 0..200 {
//!         optimizer.backward_step(&w.sqr()?.sum_all()?)?;
//!     }
//!     println!("{w}");
//!     Ok(())
//! }
//! ```

// Public for the macros, which name in a user's crate what they use.
#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod declare;
pub(crate) mod matrix;
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
pub use contract::{
    AnyRule, Curvature, EvaluationPoint, OneKernelRule, QuasiNewton, Rule, Sharpness, as_declared, smallest_state,
};
pub use declare::{Family, Hyperparameters, Spec, hyperparameters};
pub use matrix::{MatrixRule, OUTER_LAYERS, is_hidden_matrix};
pub use options::Options;
pub use progress::Progress;
pub use value::{ABOVE_ONE, Allowed, FRACTION, Hyperparameter, NON_NEGATIVE, OPEN_FRACTION, POSITIVE, Range, Value};
