//! The contract of a formula.

use super::decay::Decay;
use super::real::Real;
use super::slots::{Array, Slots};
use super::sums::{MAX_FACTORS, MAX_SUMS, Sums};

/// What a formula returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// The direction `u`: the parameter moves by `-lr (u + wd theta)`, or by `-lr u` where the decay is not decoupled.
    Direction,
    /// The new parameter. Learning rate and decay are scalars of the formula.
    Parameter,
}

/// The formula of a rule, per element. Written once: `f32` and `f64` run it on the CPU, and
/// [`header`](crate::rule::header) prints it for the GPU.
pub trait Elementwise: Sized + 'static {
    /// The name of the header, `kernels/rules/<NAME>.h`.
    const NAME: &'static str;
    /// How weight decay enters.
    const DECAY: Decay = Decay::Decoupled;
    /// What [`direction`](Self::direction) returns.
    const GIVES: Gives = Gives::Direction;
    /// The names of the scalars.
    const SCALARS: &'static [&'static str];
    /// The names of the state slots; each starts at 0. Another first value is a choice of the formula, by a scalar that is 1
    /// where the state starts.
    const SLOTS: &'static [&'static str];
    /// The sums that the formula needs.
    const SUMS: Sums = Sums::NONE;
    /// What is the same for all elements in an update, `[R; n]`.
    type Scalars<R: Real>: Array<R>;
    /// The state of an element, `[R; n]`.
    type State<R: Real>: Slots<R>;

    /// The direction of an element and its new state. The parameter moves by `-lr * direction`. (Or the new parameter itself: [`GIVES`](Self::GIVES).)
    fn direction<R: Real>(scalars: Self::Scalars<R>, grad: R, param: R, state: Self::State<R>) -> (R, Self::State<R>);

    /// What an element adds to each sum, before its state changes. The last scalars are not known yet: with [`Scope::All`](super::sums::Scope::All) they are
    /// the factors of the update before.
    fn measured<R: Real>(_scalars: Self::Scalars<R>, _grad: R, _param: R, _state: Self::State<R>) -> [R; MAX_SUMS] {
        [R::constant(0.0); MAX_SUMS]
    }

    /// The factors, from the scalars as [`measured`](Self::measured) gets them, the sums, and the number of elements.
    fn factors<R: Real>(_scalars: Self::Scalars<R>, _sums: [R; MAX_SUMS], _len: R) -> [R; MAX_FACTORS] {
        [R::constant(0.0); MAX_FACTORS]
    }
}
