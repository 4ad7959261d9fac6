//! The loops over the elements of a chunk. No operation is reordered or contracted, so that the bits do not depend on the SIMD level.
//!
//! What is in f64, or seldom used, is not compiled for vectors of 512 bits: memory is slower than either, and there are many formulas.

use super::numbers::{Compute, StepNumbers};
use crate::backend::simd::{simd, simd_up_to_256_bits};
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
    /// The same, where a step has an option around the rule: a loop of its own, since a branch within would cost each step.
    pub update_with_options: Update<R>,
    /// Adds up what the formula measures; for a formula without sums, in how many elements direction and gradient agree.
    pub measure: Measure<R>,
}

impl Loops<f32> {
    pub const fn of<T: Elementwise>() -> Self {
        // The counts of a formula without sums are for the cautious option alone.
        let measure = if T::SUMS.is_none() { measure_narrow::<T, f32> } else { measure_wide::<T, f32> };
        Self { update: update_wide::<T, f32>, update_with_options: update_narrow::<T, f32, true>, measure }
    }
}

impl Loops<f64> {
    pub const fn of<T: Elementwise>() -> Self {
        Self {
            update: update_narrow::<T, f64, false>,
            update_with_options: update::<T, f64, true>,
            measure: measure::<T, f64>,
        }
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

/// One update: `param -= lr * direction`. A rest that fills no block is updated in a block of its own, so that the formula stands
/// here once: there are many formulas, and compiling them takes long.
#[inline(always)]
fn update<T: Elementwise, R: Compute, const OPTIONS: bool>(
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
    let whole = n - n % BLOCK;
    let mut rest = Rest::of(whole, param, grad, slots);
    let mut own = reborrowed(slots);
    let [a, b, c, d] = &mut rest.slots;
    let mut of_rest = [&mut a[..], &mut b[..], &mut c[..], &mut d[..]];
    for is_rest in [false, true] {
        let (param, grad, slots, len) = if is_rest {
            (&mut rest.param[..], &rest.grad[..], &mut of_rest, rest.len)
        } else {
            (&mut *param, grad, &mut own, whole)
        };
        for at in (0..len).step_by(BLOCK) {
            prefetch(param, at + ELEMENTS_AHEAD);
            prefetch(grad, at + ELEMENTS_AHEAD);
            for slot in &slots[..T::State::<R>::LEN] {
                prefetch(slot, at + ELEMENTS_AHEAD);
            }
            let mut g: [R; BLOCK] = std::array::from_fn(|i| grad[at..at + BLOCK][i]);
            let mut p: [R; BLOCK] = std::array::from_fn(|i| param[at..at + BLOCK][i]);
            let mut u = p;
            T::State::<R>::update_block::<BLOCK>(slots, at, |i, state| {
                g[i] = prepare::<T, R>(&numbers, g[i], p[i]);
                let (given, state) = T::direction(scalars, g[i], p[i], state);
                u[i] = given;
                state
            });
            for i in 0..BLOCK {
                p[i] = moved::<T, R, OPTIONS>(&numbers, u[i], g[i], p[i]);
            }
            param[at..at + BLOCK].copy_from_slice(&p);
        }
    }
    rest.store(whole, param, slots);
}

simd! {
    fn update_wide<T: Elementwise, R: Compute>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &mut [R],
        grad: &[R],
        slots: &mut [&mut [R]; MAX_SLOTS],
    ) {
        update::<T, R, false>(scalars, numbers, param, grad, slots);
    }
}

simd_up_to_256_bits! {
    fn update_narrow<T: Elementwise, R: Compute, const OPTIONS: bool>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &mut [R],
        grad: &[R],
        slots: &mut [&mut [R]; MAX_SLOTS],
    ) {
        update::<T, R, OPTIONS>(scalars, numbers, param, grad, slots);
    }
}

/// The same slots, for a shorter time.
#[inline(always)]
fn reborrowed<'a, R>([a, b, c, d]: &'a mut [&mut [R]; MAX_SLOTS]) -> [&'a mut [R]; MAX_SLOTS] {
    [a, b, c, d]
}

/// The elements behind the last whole block, in a block with zeros behind them.
struct Rest<R> {
    len: usize,
    param: [R; BLOCK],
    grad: [R; BLOCK],
    slots: [[R; BLOCK]; MAX_SLOTS],
}

impl<R: Compute> Rest<R> {
    /// Those from `at` on, fewer than a block.
    fn of(at: usize, param: &[R], grad: &[R], slots: &[&mut [R]; MAX_SLOTS]) -> Self {
        let len = param.len() - at;
        let zeros = [R::default(); BLOCK];
        let mut rest = Self { len, param: zeros, grad: zeros, slots: [zeros; MAX_SLOTS] };
        rest.param[..len].copy_from_slice(&param[at..]);
        rest.grad[..len].copy_from_slice(&grad[at..]);
        for (to, slot) in rest.slots.iter_mut().zip(slots).filter(|(_, slot)| !slot.is_empty()) {
            to[..len].copy_from_slice(&slot[at..]);
        }
        rest
    }

    fn store(&self, at: usize, param: &mut [R], slots: &mut [&mut [R]; MAX_SLOTS]) {
        param[at..].copy_from_slice(&self.param[..self.len]);
        for (from, slot) in self.slots.iter().zip(slots).filter(|(_, slot)| !slot.is_empty()) {
            slot[at..].copy_from_slice(&from[..self.len]);
        }
    }
}

/// Elements updated, and summed up, side by side; memory is fetched ahead once for each: a line of the cache for f32.
const BLOCK: usize = 16;
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

/// Adds to each sum what the elements measure, in f64 and in a fixed order: interleaved sums, then those in order.
#[inline(always)]
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
    let whole = n - n % BLOCK;
    let count = if T::SUMS.is_none() { 1 } else { T::SUMS.of.len() };
    let mut sums = [[0.0; BLOCK]; MAX_SUMS];
    let mut rest = Rest::of(whole, param, grad, slots);
    let [a, b, c, d] = &mut rest.slots;
    let of_rest = [&mut a[..], &mut b[..], &mut c[..], &mut d[..]];
    for is_rest in [false, true] {
        let (param, grad, slots, len) =
            if is_rest { (&rest.param[..], &rest.grad[..], &of_rest, rest.len) } else { (param, grad, slots, whole) };
        for at in (0..len).step_by(BLOCK) {
            prefetch(param, at + ELEMENTS_AHEAD);
            prefetch(grad, at + ELEMENTS_AHEAD);
            for slot in &slots[..T::State::<R>::LEN] {
                prefetch(slot, at + ELEMENTS_AHEAD);
            }
            let g: [R; BLOCK] = std::array::from_fn(|i| grad[at..at + BLOCK][i]);
            let p: [R; BLOCK] = std::array::from_fn(|i| param[at..at + BLOCK][i]);
            let there = if is_rest { len } else { BLOCK };
            let mut block = [[R::default(); BLOCK]; MAX_SUMS];
            T::State::<R>::read_block::<BLOCK>(slots, at, |i, state| {
                let g = prepare::<T, R>(&numbers, g[i], p[i]);
                let values = if T::SUMS.is_none() {
                    let (u, _) = T::direction(scalars, g, p[i], state);
                    let (zero, one) = (R::constant(0.0), R::constant(1.0));
                    [(u * g).select_positive(one, zero), zero, zero]
                } else {
                    T::measured(scalars, g, p[i], state)
                };
                for k in 0..count {
                    // A sum of zeros, and of anything and 0, stays as it is.
                    block[k][i] = if i < there { values[k] } else { R::default() };
                }
            });
            for k in 0..count {
                let is_square = !T::SUMS.is_none() && T::SUMS.is_square(k);
                for i in 0..BLOCK {
                    let x = block[k][i].to_f64();
                    sums[k][i] += if is_square { x * x } else { x };
                }
            }
        }
    }
    // Through memory: otherwise the compiler takes the same lane of two sums as a vector, here and for the whole loop, which is then
    // three times as slow.
    let sums = std::hint::black_box(sums);
    for k in 0..count {
        out[k] += sums[k].iter().sum::<f64>();
    }
}

simd! {
    fn measure_wide<T: Elementwise, R: Compute>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &[R],
        grad: &[R],
        slots: &[&mut [R]; MAX_SLOTS],
        out: &mut [f64; MAX_SUMS],
    ) {
        measure::<T, R>(scalars, numbers, param, grad, slots, out);
    }
}

simd_up_to_256_bits! {
    fn measure_narrow<T: Elementwise, R: Compute>(
        scalars: &[R],
        numbers: &StepNumbers<R>,
        param: &[R],
        grad: &[R],
        slots: &[&mut [R]; MAX_SLOTS],
        out: &mut [f64; MAX_SUMS],
    ) {
        measure::<T, R>(scalars, numbers, param, grad, slots, out);
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
