//! The loops over the elements of a chunk. No operation is reordered or contracted, so that the bits do not depend on the SIMD level.

use super::numbers::{Compute, StepNumbers};
use crate::backend::simd::simd;
use crate::formula::elementwise::{Elementwise, Gives};
use crate::formula::real::Real;
use crate::formula::slots::{Array, MAX_SLOTS, Slots};
use crate::formula::sums::MAX_SUMS;

type Update<R> = fn(&[R], &StepNumbers<R>, &mut [R], &[R], &mut [&mut [R]; MAX_SLOTS]);
type Measure<R> = fn(&[R], &StepNumbers<R>, &[R], &[R], &[&mut [R]; MAX_SLOTS], &mut [f64; MAX_SUMS]);

/// The loops of a rule.
#[derive(Clone, Copy)]
pub struct Loops<R> {
    pub update: Update<R>,
    /// Adds up what the formula measures; for a formula without sums, in how many elements direction and gradient agree.
    pub measure: Measure<R>,
}

impl<R: Compute> Loops<R> {
    pub const fn of<T: Elementwise>() -> Self {
        Self { update: update::<T, R>, measure: measure::<T, R> }
    }
}

/// Scales, clips and (L2) decays a gradient.
#[inline(always)]
fn prepare<T: Elementwise, R: Real + PartialOrd>(numbers: &StepNumbers<R>, grad: R, param: R) -> R {
    let g = grad * numbers.grad_scale;
    // NaN passes through both comparisons.
    let g = if g > numbers.clip_value { numbers.clip_value } else { g };
    let g = if g < -numbers.clip_value { -numbers.clip_value } else { g };
    T::DECAY.of_gradient(numbers.weight_decay, g, param)
}

/// Where the parameter moves, with the options around a rule where `OPTIONS` is set.
#[inline(always)]
fn moved<T: Elementwise, R: Real + PartialOrd, const OPTIONS: bool>(
    numbers: &StepNumbers<R>,
    given: R,
    grad: R,
    param: R,
) -> R {
    if T::GIVES == Gives::Parameter {
        return given;
    }
    let (mut u, mut weight_decay) = (given, numbers.weight_decay);
    if OPTIONS {
        let zero = R::constant(0.0);
        if numbers.cautious {
            // A product, so that NaN stays.
            u = u * (u * grad).select_positive(numbers.mask_scale, zero);
        }
        if numbers.cautious_decay {
            weight_decay = (-(u * param)).select_positive(zero, weight_decay);
        }
    }
    param - numbers.lr * T::DECAY.of_direction(weight_decay, u, param)
}

simd! {
    /// Puts 0 in place of state that is too small to count, where the gradient is 0: processors are slow with denormal numbers, and a
    /// mean of zeros decays to such a number and stays there. NaN stays.
    pub fn drop_tiny<R: Compute>(smallest: R, grad: &[R], slots: &mut [&mut [R]; MAX_SLOTS]) {
        for slot in slots {
            for (x, g) in slot.iter_mut().zip(grad) {
                *x = if *g == R::default() && x.abs() < smallest { R::default() } else { *x };
            }
        }
    }
}

simd! {
    /// One update: `param -= lr * direction`.
    fn update<T: Elementwise, R: Real + PartialOrd>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &mut [R],
        grad: &[R],
        slots: &mut [&mut [R]; MAX_SLOTS],
    ) {
        let scalars = T::Scalars::<R>::from_fn(|k| scalars[k]);
        let numbers = *numbers;
        let n = param.len();
        let grad = &grad[..n];
        let whole = n - n % ELEMENTS_PER_LINE;
        let has_options = numbers.cautious | numbers.cautious_decay;
        for at in (0..whole).step_by(ELEMENTS_PER_LINE) {
            prefetch(param, at + ELEMENTS_AHEAD);
            prefetch(grad, at + ELEMENTS_AHEAD);
            for slot in &slots[..T::State::<R>::LEN] {
                prefetch(slot, at + ELEMENTS_AHEAD);
            }
            let mut g: [R; ELEMENTS_PER_LINE] = std::array::from_fn(|i| grad[at..at + ELEMENTS_PER_LINE][i]);
            let mut p: [R; ELEMENTS_PER_LINE] = std::array::from_fn(|i| param[at..at + ELEMENTS_PER_LINE][i]);
            let mut u = p;
            T::State::<R>::update_block::<ELEMENTS_PER_LINE>(slots, at, |i, state| {
                g[i] = prepare::<T, R>(&numbers, g[i], p[i]);
                let (given, state) = T::direction(scalars, g[i], p[i], state);
                u[i] = given;
                state
            });
            // The formula stands here once: options cost nothing where there are none.
            if has_options {
                for i in 0..ELEMENTS_PER_LINE {
                    p[i] = moved::<T, R, true>(&numbers, u[i], g[i], p[i]);
                }
            } else {
                for i in 0..ELEMENTS_PER_LINE {
                    p[i] = moved::<T, R, false>(&numbers, u[i], g[i], p[i]);
                }
            }
            param[at..at + ELEMENTS_PER_LINE].copy_from_slice(&p);
        }
        let (param, grad) = (&mut param[whole..], &grad[whole..]);
        let mut rest = slots.each_mut().map(|slot| if slot.is_empty() { &mut [][..] } else { &mut slot[whole..] });
        T::State::<R>::update_each(&mut rest, param.len(), |i, state| {
            let (p, g) = (param[i], prepare::<T, R>(&numbers, grad[i], param[i]));
            let (u, state) = T::direction(scalars, g, p, state);
            param[i] = moved::<T, R, true>(&numbers, u, g, p);
            state
        });
    }
}

/// Elements updated between two prefetches: a line of the cache for f32.
const ELEMENTS_PER_LINE: usize = 16;
/// How many elements ahead of the update memory is fetched.
const ELEMENTS_AHEAD: usize = 128;

/// Asks for the cache line of element `at`, which may lie behind the end.
#[inline(always)]
fn prefetch<R>(values: &[R], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint to the processor, which reads nothing that the program could see and ignores addresses that
        // are not mapped; the pointer is not dereferenced.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}

/// Sums that are formed side by side.
const LANES: usize = 16;

simd! {
    /// Adds to each sum what the elements measure, in f64 and in a fixed order: interleaved sums, then those in order.
    fn measure<T: Elementwise, R: Compute>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &[R],
        grad: &[R],
        slots: &[&mut [R]; MAX_SLOTS],
        out: &mut [f64; MAX_SUMS],
    ) {
        let scalars = T::Scalars::<R>::from_fn(|k| scalars[k]);
        let numbers = *numbers;
        let n = param.len();
        let grad = &grad[..n];
        let count = if T::SUMS.is_none() { 1 } else { T::SUMS.of.len() };
        let mut sums = [[0.0; LANES]; MAX_SUMS];
        let values = |grad: R, p: R, state: T::State<R>| {
            let g = prepare::<T, R>(&numbers, grad, p);
            if T::SUMS.is_none() {
                let (u, _) = T::direction(scalars, g, p, state);
                let (zero, one) = (R::constant(0.0), R::constant(1.0));
                [(u * g).select_positive(one, zero), zero, zero]
            } else {
                T::measured(scalars, g, p, state)
            }
        };
        let summand = |k: usize, x: R| {
            let x = x.to_f64();
            if !T::SUMS.is_none() && T::SUMS.is_square(k) { x * x } else { x }
        };
        let whole = n - n % LANES;
        for at in (0..whole).step_by(LANES) {
            let mut block = [[R::default(); LANES]; MAX_SUMS];
            T::State::<R>::read_each(slots, at, LANES, |i, state| {
                let values = values(grad[at..at + LANES][i], param[at..at + LANES][i], state);
                for k in 0..count {
                    block[k][i] = values[k];
                }
            });
            for k in 0..count {
                for i in 0..LANES {
                    sums[k][i] += summand(k, block[k][i]);
                }
            }
        }
        T::State::<R>::read_each(slots, whole, n - whole, |i, state| {
            let values = values(grad[whole + i], param[whole + i], state);
            for k in 0..count {
                sums[k][i] += summand(k, values[k]);
            }
        });
        for k in 0..count {
            out[k] += sums[k].iter().sum::<f64>();
        }
    }
}

simd! {
    /// The sum of squares in f64, in a fixed order: 16 interleaved sums, then those in order.
    pub fn sum_of_squares<R: Compute>(values: &[R]) -> f64 {
        let mut sums = [0.0; 16];
        let blocks = values.chunks_exact(16);
        let rest = blocks.remainder();
        // By index: this is compiled in the crate that uses it, where iterators and closures may stay calls for each block.
        for block in blocks {
            let mut i = 0;
            while i < 16 {
                let x = block[i].to_f64();
                sums[i] += x * x;
                i += 1;
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            let x = x.to_f64();
            *sum += x * x;
        }
        sums.iter().sum()
    }
}

/// What is added to each element `x` of a tensor, where another tensor has `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// `scale y`.
    Scaled,
    /// `scale x^2 y`.
    Adaptive,
    /// `scale (y - x)`; where the scale is 1, `x` becomes `y` to the bit.
    Toward,
}

simd! {
    /// Adds the term to each `param`, of each `grad`.
    pub fn add_term<R: Compute>(param: &mut [R], scale: R, term: Term, grad: &[R]) {
        if term == Term::Toward && scale == R::from_f64(1.0) {
            return param.copy_from_slice(grad);
        }
        for (p, g) in param.iter_mut().zip(grad) {
            let (x, y) = (*p, *g);
            *p = match term {
                Term::Scaled => x + scale * y,
                Term::Adaptive => x + x * x * scale * y,
                Term::Toward => x + scale * (y - x),
            };
        }
    }
}
