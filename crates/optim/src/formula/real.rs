//! The number types that a rule is evaluated in: `f32` and `f64` compute, [`Expr`](super::trace::Expr) records.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// What the formula of a rule may use. Anything else could not be printed for the GPU.
pub trait Real:
    Copy
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// A number that is part of the formula.
    fn constant(x: f64) -> Self;
    /// The square root; NaN below 0.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The larger of two; NaN if either is NaN (`f32::max` would hide it).
    fn max(self, other: Self) -> Self;
    /// The smaller of two; NaN if either is NaN.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        -(-self).max(-other)
    }
    /// `then` where `self > 0`, `otherwise` elsewhere, also for NaN.
    fn select_positive(self, then: Self, otherwise: Self) -> Self;

    /// -1, 0 or 1; 0 for 0 (`f32::signum(0.0)` is 1) and NaN for NaN.
    #[inline(always)]
    fn sign(self) -> Self {
        let one = Self::constant(1.0);
        self.select_positive(one, (-self).select_positive(-one, self))
    }

    /// `self + weight * (end - self)`.
    #[inline(always)]
    fn lerp(self, end: Self, weight: Self) -> Self {
        self + weight * (end - self)
    }
}

macro_rules! float {
    ($float:ident) => {
        impl Real for $float {
            #[inline(always)]
            fn constant(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$float>::abs(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn select_positive(self, then: Self, otherwise: Self) -> Self {
                if self > 0.0 { then } else { otherwise }
            }
        }
    };
}
float!(f32);
float!(f64);
