//! The formula of rules that transform the gradient of a matrix itself.

use crate::formula::{
    decay::Decay,
    elementwise::{Elementwise, Gives},
    real::Real,
};

/// Gives the gradient.
pub(crate) struct Gradient;

impl Elementwise for Gradient {
    const NAME: &'static str = "gradient";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &[];
    const SLOTS: &'static [&'static str] = &[];
    type Scalars<R: Real> = [R; 0];
    type State<R: Real> = [R; 0];

    #[inline(always)]
    fn direction<R: Real>([]: [R; 0], grad: R, _param: R, []: [R; 0]) -> (R, [R; 0]) {
        (grad, [])
    }
}
