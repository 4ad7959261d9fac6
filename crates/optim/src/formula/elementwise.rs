//! The contract of a formula.

use super::decay::Decay;
use super::real::Real;
use super::slots::{Array, Slots};

/// The formula of a rule, per element. Written once: `f32` and `f64` run it on the CPU, and
/// [`header`](crate::rule::header) prints it for the GPU.
pub trait Elementwise: Sized + 'static {
    /// The name of the header, `kernels/rules/<NAME>.h`.
    const NAME: &'static str;
    /// How weight decay enters.
    const DECAY: Decay = Decay::Decoupled;
    /// The names of the scalars.
    const SCALARS: &'static [&'static str];
    /// The names of the state slots; each starts at 0.
    const SLOTS: &'static [&'static str];
    /// What is the same for all elements in an update, `[R; n]`.
    type Scalars<R: Real>: Array<R>;
    /// The state of an element, `[R; n]`.
    type State<R: Real>: Slots<R>;

    /// The direction of an element and its new state. The parameter moves by `-lr * direction`.
    fn direction<R: Real>(scalars: Self::Scalars<R>, grad: R, param: R, state: Self::State<R>) -> (R, Self::State<R>);
}
