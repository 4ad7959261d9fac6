//! The loops over the elements of a chunk. No operation is reordered or contracted, so that the bits do not depend on the SIMD level.

use super::numbers::{Compute, StepNumbers};
use crate::backend::simd::simd;
use crate::formula::elementwise::Elementwise;
use crate::formula::real::Real;
use crate::formula::slots::{Array, MAX_SLOTS, Slots};

type Update<R> = fn(&[R], &StepNumbers<R>, &mut [R], &[R], &mut [&mut [R]; MAX_SLOTS]);
type Direction<R> = fn(&[R], &StepNumbers<R>, &[R], &[R], &mut [&mut [R]; MAX_SLOTS], &mut [R]);

/// The loops of a rule.
#[derive(Clone, Copy)]
pub struct Loops<R> {
    pub update: Update<R>,
    pub direction: Direction<R>,
}

impl<R: Real + PartialOrd> Loops<R> {
    pub const fn of<T: Elementwise>() -> Self {
        Self { update: update::<T, R>, direction: direction::<T, R> }
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

#[inline(always)]
fn decayed<T: Elementwise, R: Real>(numbers: &StepNumbers<R>, direction: R, param: R) -> R {
    T::DECAY.of_direction(numbers.weight_decay, direction, param)
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
        for at in (0..whole).step_by(ELEMENTS_PER_LINE) {
            prefetch(param, at + ELEMENTS_AHEAD);
            prefetch(grad, at + ELEMENTS_AHEAD);
            for slot in &slots[..T::State::<R>::LEN] {
                prefetch(slot, at + ELEMENTS_AHEAD);
            }
            let g: [R; ELEMENTS_PER_LINE] = std::array::from_fn(|i| grad[at..at + ELEMENTS_PER_LINE][i]);
            let mut p: [R; ELEMENTS_PER_LINE] = std::array::from_fn(|i| param[at..at + ELEMENTS_PER_LINE][i]);
            T::State::<R>::update_block::<ELEMENTS_PER_LINE>(slots, at, |i, state| {
                let (u, state) = T::direction(scalars, prepare::<T, R>(&numbers, g[i], p[i]), p[i], state);
                p[i] = p[i] - numbers.lr * decayed::<T, R>(&numbers, u, p[i]);
                state
            });
            param[at..at + ELEMENTS_PER_LINE].copy_from_slice(&p);
        }
        let (param, grad) = (&mut param[whole..], &grad[whole..]);
        let mut rest = slots.each_mut().map(|slot| if slot.is_empty() { &mut [][..] } else { &mut slot[whole..] });
        T::State::<R>::update_each(&mut rest, param.len(), |i, state| {
            let p = param[i];
            let (u, state) = T::direction(scalars, prepare::<T, R>(&numbers, grad[i], p), p, state);
            param[i] = p - numbers.lr * decayed::<T, R>(&numbers, u, p);
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

simd! {
    /// The state's update alone; the direction with decoupled decay goes to `out`.
    fn direction<T: Elementwise, R: Real + PartialOrd>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &[R],
        grad: &[R],
        slots: &mut [&mut [R]; MAX_SLOTS],
        out: &mut [R],
    ) {
        let scalars = T::Scalars::<R>::from_fn(|k| scalars[k]);
        let numbers = *numbers;
        let n = param.len();
        let (grad, out) = (&grad[..n], &mut out[..n]);
        T::State::<R>::update_each(slots, n, |i, state| {
            let p = param[i];
            let (u, state) = T::direction(scalars, prepare::<T, R>(&numbers, grad[i], p), p, state);
            out[i] = decayed::<T, R>(&numbers, u, p);
            state
        });
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

simd! {
    /// `param -= step * direction`.
    pub fn apply<R: Compute>(param: &mut [R], step: R, direction: &[R]) {
        for (p, u) in param.iter_mut().zip(direction) {
            *p = *p - step * *u;
        }
    }
}

simd! {
    /// `param += scale * grad`, or `scale * param^2 * grad`.
    pub fn add_scaled<R: Compute>(param: &mut [R], scale: R, adaptive: bool, grad: &[R]) {
        for (p, g) in param.iter_mut().zip(grad) {
            let weight = if adaptive { *p * *p * scale } else { scale };
            *p = *p + weight * *g;
        }
    }
}
