//! The loops over elements on the CPU, and how the elements of all tensors are shared among the threads.
//!
//! All tensors are cut into chunks of a fixed length and the threads take chunks (`share.rs`), so that one large tensor and many
//! small ones both occupy every core. Sums are formed per chunk and added in order: the bits do not depend on the
//! number of threads, nor on the SIMD level, since no operation is reordered or contracted.

use super::share;
use crate::formula::elementwise::Elementwise;
use crate::formula::real::Real;
use crate::formula::slots::{Array, MAX_SLOTS, Slots};
use crate::formula::trust_ratio::TrustRatio;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use multiversion::multiversion;

/// Elements of a chunk: its state fits the second-level cache.
const CHUNK: usize = 16_384;
/// Elements that are converted from and to 16 bits at a time, in the first-level cache.
const BLOCK: usize = 1_024;
/// Up to here one thread is faster than waking the others.
const MAX_SERIAL_ELEMENTS: usize = 32_768;

/// The number type that a tensor is computed in: `f64` for `f64` parameters, `f32` for all others.
pub trait Compute: Real + Default + PartialOrd {
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn load_bf16(from: &[bf16], to: &mut [Self]);
    fn load_f16(from: &[f16], to: &mut [Self]);
    fn store_bf16(from: &[Self], to: &mut [bf16]);
    fn store_f16(from: &[Self], to: &mut [f16]);
}

macro_rules! compute {
    ($float:ident, $convert_from:ident, $convert_to:ident) => {
        impl Compute for $float {
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn load_bf16(from: &[bf16], to: &mut [Self]) {
                from.$convert_to(to);
            }
            fn load_f16(from: &[f16], to: &mut [Self]) {
                from.$convert_to(to);
            }
            fn store_bf16(from: &[Self], to: &mut [bf16]) {
                to.$convert_from(from);
            }
            fn store_f16(from: &[Self], to: &mut [f16]) {
                to.$convert_from(from);
            }
        }
    };
}
compute!(f32, convert_from_f32_slice, convert_to_f32_slice);
compute!(f64, convert_from_f64_slice, convert_to_f64_slice);

/// What an update does beside the rule, the same for all elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct StepNumbers<R> {
    pub lr: R,
    pub weight_decay: R,
    /// Multiplies the gradient: accumulation and clipping by norm.
    pub grad_scale: R,
    /// The largest absolute value of a gradient after scaling; infinite for none.
    pub clip_value: R,
    /// State below this absolute value becomes 0 where the gradient is 0, before the update; 0 for none.
    pub smallest_state: R,
}

impl StepNumbers<f64> {
    fn to<R: Compute>(self) -> StepNumbers<R> {
        StepNumbers {
            lr: R::from_f64(self.lr),
            weight_decay: R::from_f64(self.weight_decay),
            grad_scale: R::from_f64(self.grad_scale),
            clip_value: R::from_f64(self.clip_value),
            smallest_state: R::from_f64(self.smallest_state),
        }
    }
}

type Update<R> = fn(&[R], &StepNumbers<R>, &mut [R], &[R], &mut [&mut [R]; MAX_SLOTS]);
type Direction<R> = fn(&[R], &StepNumbers<R>, &[R], &[R], &mut [&mut [R]; MAX_SLOTS], &mut [R]);

/// The loops of a rule.
#[derive(Clone, Copy)]
pub struct Loops<R> {
    update: Update<R>,
    direction: Direction<R>,
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

/// Puts 0 in place of state that is too small to count, where the gradient is 0: processors are slow with denormal numbers, and a
/// mean of zeros decays to such a number and stays there. NaN stays.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn drop_tiny<R: Compute>(smallest: R, grad: &[R], slots: &mut [&mut [R]; MAX_SLOTS]) {
    for slot in slots {
        for (x, g) in slot.iter_mut().zip(grad) {
            *x = if *g == R::default() && x.abs() < smallest { R::default() } else { *x };
        }
    }
}

/// One update: `param -= lr * direction`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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

/// The state's update alone; the direction with decoupled decay goes to `out`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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

/// The sum of squares in f64, in a fixed order: 16 interleaved sums, then those in order.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn sum_of_squares<R: Compute>(values: &[R]) -> f64 {
    let mut sums = [0.0; 16];
    let blocks = values.chunks_exact(16);
    let rest = blocks.remainder();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            let x = x.to_f64();
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        let x = x.to_f64();
        *sum += x * x;
    }
    sums.iter().sum()
}

/// `param -= step * direction`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn apply<R: Compute>(param: &mut [R], step: R, direction: &[R]) {
    for (p, u) in param.iter_mut().zip(direction) {
        *p = *p - step * *u;
    }
}

/// `param += scale * grad`, or `scale * param^2 * grad`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_scaled<R: Compute>(param: &mut [R], scale: R, adaptive: bool, grad: &[R]) {
    for (p, g) in param.iter_mut().zip(grad) {
        let weight = if adaptive { *p * *p * scale } else { scale };
        *p = *p + weight * *g;
    }
}

/// Numbers to read, of a dtype that converts to `R`.
#[derive(Clone, Copy)]
pub enum Source<'a, R> {
    Same(&'a [R]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<R: Compute> Source<'_, R> {
    fn load(&self, at: usize, to: &mut [R]) {
        let range = at..at + to.len();
        match self {
            Source::Same(all) => to.copy_from_slice(&all[range]),
            Source::Bf16(all) => R::load_bf16(&all[range], to),
            Source::F16(all) => R::load_f16(&all[range], to),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Source::Same(all) => all.len(),
            Source::Bf16(all) => all.len(),
            Source::F16(all) => all.len(),
        }
    }

    fn chunks(self) -> Vec<Self> {
        match self {
            Source::Same(all) => all.chunks(CHUNK).map(Source::Same).collect(),
            Source::Bf16(all) => all.chunks(CHUNK).map(Source::Bf16).collect(),
            Source::F16(all) => all.chunks(CHUNK).map(Source::F16).collect(),
        }
    }

    fn sum_of_squares(&self) -> f64 {
        match self {
            Source::Same(all) => sum_of_squares(all),
            _ => self.blocks().map(|block| sum_of_squares(&block)).sum(),
        }
    }

    /// The values in `R`, block by block.
    fn blocks(&self) -> impl Iterator<Item = Vec<R>> {
        (0..self.len()).step_by(BLOCK).map(|at| {
            let mut block = vec![R::default(); BLOCK.min(self.len() - at)];
            self.load(at, &mut block);
            block
        })
    }
}

/// Numbers to write, of a dtype that converts from `R`.
pub enum Target<'a, R> {
    Same(&'a mut [R]),
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
}

impl<R: Compute> Target<'_, R> {
    fn chunks(self) -> Vec<Self> {
        match self {
            Target::Same(all) => all.chunks_mut(CHUNK).map(Target::Same).collect(),
            Target::Bf16(all) => all.chunks_mut(CHUNK).map(Target::Bf16).collect(),
            Target::F16(all) => all.chunks_mut(CHUNK).map(Target::F16).collect(),
        }
    }

    fn source(&self) -> Source<'_, R> {
        match self {
            Target::Same(all) => Source::Same(all),
            Target::Bf16(all) => Source::Bf16(all),
            Target::F16(all) => Source::F16(all),
        }
    }

    /// What the parameter's elements from `at` on are in full precision, where they are not the rounding of `master`: those were
    /// written by someone else, and replace their master copies. `wide` is scratch.
    fn adopt_written(&self, at: usize, master: &mut [R], wide: &mut [R]) {
        let range = at..at + master.len();
        macro_rules! adopt {
            ($half:ident, $all:expr, $store:ident, $load:ident) => {{
                let param = &$all[range];
                let rounded = &mut [$half::ZERO; BLOCK][..param.len()];
                R::$store(master, rounded);
                if rounded.reinterpret_cast() == param.reinterpret_cast() {
                    return;
                }
                R::$load(param, wide);
                for (master, (wide, (rounded, param))) in
                    master.iter_mut().zip(wide.iter().zip(rounded.iter().zip(param)))
                {
                    if rounded.to_bits() != param.to_bits() {
                        *master = *wide;
                    }
                }
            }};
        }
        match self {
            Target::Same(_) => {}
            Target::Bf16(all) => adopt!(bf16, all, store_bf16, load_bf16),
            Target::F16(all) => adopt!(f16, all, store_f16, load_f16),
        }
    }

    /// Stores the element `at` and following. `noise`: the key of stochastic rounding to bf16, and the first one's number in
    /// its tensor.
    fn store(&mut self, at: usize, from: &[R], noise: Option<(u64, usize)>) {
        let range = at..at + from.len();
        match (self, noise) {
            (Target::Bf16(all), Some((key, first))) => {
                for (i, (to, x)) in all[range].iter_mut().zip(from).enumerate() {
                    *to = stochastic_bf16(x.to_f64() as f32, noise_at(key, (first + i) as u64));
                }
            }
            (target, _) => target.store_nearest(range, from),
        }
    }

    fn store_nearest(&mut self, range: std::ops::Range<usize>, from: &[R]) {
        match self {
            Target::Same(all) => all[range].copy_from_slice(from),
            Target::Bf16(all) => R::store_bf16(from, &mut all[range]),
            Target::F16(all) => R::store_f16(from, &mut all[range]),
        }
    }
}

/// 16 random bits, a function of the key and the element's number alone: two rounds of a 32-bit hash of low bias, as in
/// `launch.h`.
fn noise_at(key: u64, element: u64) -> u32 {
    let mix = |x: u32| {
        let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        x ^ (x >> 16)
    };
    let high = ((element >> 32) as u32).wrapping_mul(0x9E37_79B9).wrapping_add((key >> 32) as u32);
    mix(mix(element as u32 ^ key as u32).wrapping_add(high)) >> 16
}

/// Rounds up as often as the number is close to the upper neighbour, if the noise is uniform.
fn stochastic_bf16(x: f32, noise: u32) -> bf16 {
    if x.is_finite() { bf16::from_bits(((x.to_bits() + noise) >> 16) as u16) } else { bf16::from_f32(x) }
}

/// A tensor to update, its gradient and its state.
pub struct Operands<'a, R> {
    pub param: Target<'a, R>,
    /// What the update really moves where the parameter has 16 bits; the parameter is then its rounding.
    pub master: Option<&'a mut [R]>,
    pub grad: Source<'a, R>,
    pub slots: [&'a mut [R]; MAX_SLOTS],
    /// Holds the direction between the two passes of a trust ratio; else empty.
    pub direction: &'a mut [R],
    /// The key of stochastic rounding.
    pub noise: Option<u64>,
    /// The number of the first element in its tensor.
    pub start: usize,
}

impl<'a, R: Compute> Operands<'a, R> {
    pub fn stateless(param: Target<'a, R>, grad: Source<'a, R>) -> Self {
        Self { param, master: None, grad, slots: Default::default(), direction: &mut [], noise: None, start: 0 }
    }

    fn chunks(self) -> impl Iterator<Item = Self> {
        let mut master = self.master.map(|m| m.chunks_mut(CHUNK));
        let mut slots = self.slots.map(|s| s.chunks_mut(CHUNK));
        let mut direction = self.direction.chunks_mut(CHUNK);
        let noise = self.noise;
        let pairs = self.param.chunks().into_iter().zip(self.grad.chunks());
        pairs.enumerate().map(move |(chunk, (param, grad))| Operands {
            noise,
            start: chunk * CHUNK,
            param,
            master: master.as_mut().and_then(Iterator::next),
            grad,
            slots: slots.each_mut().map(|s| s.next().unwrap_or_default()),
            direction: direction.next().unwrap_or_default(),
        })
    }

    /// Calls `f(parameter, gradient, slots, direction)` on blocks with the first two in `R`, and stores the parameter.
    fn for_blocks(&mut self, mut f: impl FnMut(&mut [R], &[R], &mut [&mut [R]; MAX_SLOTS], &mut [R])) {
        if let (Target::Same(param), Source::Same(grad)) = (&mut self.param, &self.grad) {
            return f(param, grad, &mut self.slots.each_mut().map(|s| &mut **s), self.direction);
        }
        let (mut param_block, mut grad_block) = ([R::default(); BLOCK], [R::default(); BLOCK]);
        let len = self.grad.len();
        for at in (0..len).step_by(BLOCK) {
            let range = at..len.min(at + BLOCK);
            let (param, grad) = (&mut param_block[..range.len()], &mut grad_block[..range.len()]);
            self.grad.load(at, grad);
            let slots = &mut self.slots.each_mut().map(|s| part(s, &range));
            let direction = part(self.direction, &range);
            if let Some(master) = &mut self.master {
                let master = &mut master[range];
                self.param.adopt_written(at, master, param);
                f(master, grad, slots, direction);
                self.param.store(at, master, None);
            } else {
                self.param.source().load(at, param);
                f(param, grad, slots, direction);
                self.param.store(at, param, self.noise.map(|key| (key, self.start + at)));
            }
        }
    }
}

/// A range of a slice that is empty where it is not needed.
fn part<'a, R>(all: &'a mut [R], range: &std::ops::Range<usize>) -> &'a mut [R] {
    if all.is_empty() { all } else { &mut all[range.clone()] }
}

/// How to update a tensor.
pub struct Job<R> {
    pub loops: Loops<R>,
    pub scalars: Vec<R>,
    pub numbers: StepNumbers<R>,
    pub ratio: Option<TrustRatio>,
}

impl<R: Compute> Job<R> {
    pub fn new(loops: Loops<R>, scalars: &[f64], numbers: StepNumbers<f64>, ratio: Option<TrustRatio>) -> Self {
        let scalars = scalars.iter().map(|s| R::from_f64(*s)).collect();
        Self { loops, scalars, numbers: numbers.to(), ratio }
    }
}

/// Runs `f` on every item, on all threads where that pays; the results are in order.
fn for_all<T: Send, O: Send>(items: Vec<T>, elements: usize, f: impl Fn(T) -> O + Sync + Send) -> Vec<O> {
    if elements <= MAX_SERIAL_ELEMENTS { items.into_iter().map(f).collect() } else { share::map(items, f) }
}

/// Updates all tensors.
pub fn step<R: Compute>(tensors: Vec<(Operands<'_, R>, Job<R>)>) {
    let elements = tensors.iter().map(|(operands, _)| operands.grad.len()).sum();
    let (mut chunks, mut jobs) = (Vec::new(), Vec::with_capacity(tensors.len()));
    for (tensor, (operands, job)) in tensors.into_iter().enumerate() {
        chunks.extend(operands.chunks().map(|chunk| (tensor, chunk)));
        jobs.push(job);
    }
    // The squared norms of parameter and direction, where a trust ratio needs them.
    let norms = for_all(chunks.iter_mut().collect(), elements, |(tensor, chunk)| {
        let Job { loops, scalars, numbers, ratio } = &jobs[*tensor];
        let mut norms = [0.0; 2];
        chunk.for_blocks(|param, grad, slots, direction| {
            if numbers.smallest_state > R::default() {
                drop_tiny(numbers.smallest_state, grad, slots);
            }
            if ratio.is_none() {
                return (loops.update)(scalars, numbers, param, grad, slots);
            }
            (loops.direction)(scalars, numbers, param, grad, slots, direction);
            norms[0] += sum_of_squares(param);
            norms[1] += sum_of_squares(direction);
        });
        norms
    });
    if jobs.iter().all(|job| job.ratio.is_none()) {
        return;
    }
    let mut totals = vec![[0.0; 2]; jobs.len()];
    for ((tensor, _), chunk) in chunks.iter().zip(norms) {
        totals[*tensor][0] += chunk[0];
        totals[*tensor][1] += chunk[1];
    }
    for_all(chunks, elements, |(tensor, mut chunk)| {
        let Job { numbers, ratio: Some(ratio), .. } = &jobs[tensor] else { return };
        let [param_norm, direction_norm] = totals[tensor].map(f64::sqrt);
        let step = numbers.lr * R::from_f64(ratio.ratio(param_norm, direction_norm));
        chunk.for_blocks(|param, _, _, direction| apply(param, step, direction));
    });
}

/// Adds `scale * grad`, or `scale * param^2 * grad`, to each parameter.
pub fn add<R: Compute>(tensors: Vec<(Operands<'_, R>, f64, bool)>) {
    let elements = tensors.iter().map(|(operands, ..)| operands.grad.len()).sum();
    let chunks = tensors.into_iter().flat_map(|(operands, scale, adaptive)| {
        let scale = R::from_f64(scale);
        operands.chunks().map(move |chunk| (chunk, scale, adaptive))
    });
    for_all(chunks.collect(), elements, |(mut chunk, scale, adaptive)| {
        chunk.for_blocks(|param, grad, _, _| add_scaled(param, scale, adaptive, grad));
    });
}

/// The sum of squares of a tensor, each value first multiplied by that of `weight` where there is one.
pub fn squared_norm<R: Compute>(values: Source<'_, R>, weight: Option<Source<'_, R>>) -> f64 {
    let elements = values.len();
    let sums = match weight {
        None => for_all(values.chunks(), elements, |chunk| chunk.sum_of_squares()),
        Some(weight) => {
            let chunks = values.chunks().into_iter().zip(weight.chunks()).collect();
            for_all(chunks, elements, |(values, weight): (Source<'_, R>, Source<'_, R>)| {
                let blocks = values.blocks().zip(weight.blocks());
                let products = blocks.map(|(a, b)| a.iter().zip(b).map(|(a, b)| *a * b).collect::<Vec<R>>());
                products.map(|block| sum_of_squares(&block)).sum()
            })
        }
    };
    sums.iter().sum()
}
