//! The number types that a rule is evaluated in: `f32` and `f64` compute, [`Expr`](crate::trace::Expr) records.

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

/// A fixed number of values, so that a rule can take its scalars and its state apart by pattern.
pub trait Array<R>: Copy + AsRef<[R]> {
    /// How many.
    const LEN: usize;
    /// The array whose element `i` is `f(i)`.
    fn from_fn(f: impl FnMut(usize) -> R) -> Self;
}

impl<R: Copy, const N: usize> Array<R> for [R; N] {
    const LEN: usize = N;
    #[inline(always)]
    fn from_fn(f: impl FnMut(usize) -> R) -> Self {
        std::array::from_fn(f)
    }
}

/// The most state slots that a rule may have.
pub const MAX_SLOTS: usize = 3;

/// The state of one element: up to [`MAX_SLOTS`] values.
pub trait Slots<R>: Array<R> {
    /// Calls `f(i, state of element i)` for `i` in `0..n` and stores what it returns. Slot `k` of element `i` is
    /// `slots[k][i]`.
    fn update_each(slots: &mut [&mut [R]; MAX_SLOTS], n: usize, f: impl FnMut(usize, Self) -> Self);

    /// The same for the `N` elements from `at` on, `i` in `0..N`.
    fn update_block<const N: usize>(slots: &mut [&mut [R]; MAX_SLOTS], at: usize, f: impl FnMut(usize, Self) -> Self);
}

// A loop per number of slots over plain local slices of known length: this is what the compiler vectorises; a loop
// over a slice of slices takes twice as long.
macro_rules! slots {
    ($n:literal: $($slot:ident $k:literal),*) => {
        impl<R: Copy> Slots<R> for [R; $n] {
            #[inline(always)]
            #[allow(unused_variables, reason = "for 0 slots")]
            fn update_each(slots: &mut [&mut [R]; MAX_SLOTS], n: usize, mut f: impl FnMut(usize, Self) -> Self) {
                $(let $slot = &mut std::mem::take(&mut slots[$k])[..n];)*
                for i in 0..n {
                    let updated = f(i, [$($slot[i]),*]);
                    $($slot[i] = updated[$k];)*
                }
            }

            #[inline(always)]
            #[allow(unused_variables, reason = "for 0 slots")]
            fn update_block<const N: usize>(
                slots: &mut [&mut [R]; MAX_SLOTS],
                at: usize,
                mut f: impl FnMut(usize, Self) -> Self,
            ) {
                $(let mut $slot: [R; N] = std::array::from_fn(|i| slots[$k][at..at + N][i]);)*
                for i in 0..N {
                    let updated = f(i, [$($slot[i]),*]);
                    $($slot[i] = updated[$k];)*
                }
                $(slots[$k][at..at + N].copy_from_slice(&$slot);)*
            }
        }
    };
}
slots!(0:);
slots!(1: a 0);
slots!(2: a 0, b 1);
slots!(3: a 0, b 1, c 2);
