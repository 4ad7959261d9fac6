//! Weight decay, and where it enters an update.

use super::real::Real;

/// How weight decay enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `wd theta` is added to the gradient before the rule sees it.
    L2,
    /// `wd theta` is added to the direction, so that it is not part of the rule's averages.
    Decoupled,
    /// The formula decays the parameter itself, by scalars of its own.
    Own,
}

impl Decay {
    /// The gradient that the rule sees.
    #[inline(always)]
    pub(crate) fn of_gradient<R: Real>(self, weight_decay: R, grad: R, param: R) -> R {
        if self == Decay::L2 { grad + weight_decay * param } else { grad }
    }

    /// The direction that the parameter moves against.
    #[inline(always)]
    pub(crate) fn of_direction<R: Real>(self, weight_decay: R, direction: R, param: R) -> R {
        if self == Decay::Decoupled { direction + weight_decay * param } else { direction }
    }
}
