//! The tensors that a loop reads and writes, cut into chunks and converted from and to 16 bits.

use super::loops::sum_of_squares;
use super::numbers::Compute;
use crate::formula::slots::MAX_SLOTS;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Elements of a chunk: its state fits the second-level cache.
const CHUNK: usize = 16_384;
/// Elements that are converted from and to 16 bits at a time, in the first-level cache.
const BLOCK: usize = 1_024;
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

    pub fn chunks(self) -> Vec<Self> {
        match self {
            Source::Same(all) => all.chunks(CHUNK).map(Source::Same).collect(),
            Source::Bf16(all) => all.chunks(CHUNK).map(Source::Bf16).collect(),
            Source::F16(all) => all.chunks(CHUNK).map(Source::F16).collect(),
        }
    }

    pub fn sum_of_squares(&self) -> f64 {
        match self {
            Source::Same(all) => sum_of_squares(all),
            _ => self.blocks().map(|block| sum_of_squares(&block)).sum(),
        }
    }

    /// The values in `R`, block by block.
    pub fn blocks(&self) -> impl Iterator<Item = Vec<R>> {
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
    pub fn chunks(self) -> Vec<Self> {
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
    /// The key of stochastic rounding.
    pub noise: Option<u64>,
    /// The number of the first element in its tensor.
    pub start: usize,
}

impl<'a, R: Compute> Operands<'a, R> {
    pub fn stateless(param: Target<'a, R>, grad: Source<'a, R>) -> Self {
        Self { param, master: None, grad, slots: Default::default(), noise: None, start: 0 }
    }

    pub fn chunks(self) -> impl Iterator<Item = Self> {
        // Most tensors are one chunk, and need no lists of them.
        let (one, many) = if self.grad.len() <= CHUNK { (Some(self), None) } else { (None, Some(self.cut())) };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn cut(self) -> impl Iterator<Item = Self> {
        let mut master = self.master.map(|m| m.chunks_mut(CHUNK));
        let mut slots = self.slots.map(|s| s.chunks_mut(CHUNK));
        let noise = self.noise;
        let pairs = self.param.chunks().into_iter().zip(self.grad.chunks());
        pairs.enumerate().map(move |(chunk, (param, grad))| Operands {
            noise,
            start: chunk * CHUNK,
            param,
            master: master.as_mut().and_then(Iterator::next),
            grad,
            slots: slots.each_mut().map(|s| s.next().unwrap_or_default()),
        })
    }

    /// Calls `f(parameter, gradient, slots)` on blocks with the first two in `R`, and stores the parameter.
    pub fn for_blocks(&mut self, mut f: impl FnMut(&mut [R], &[R], &mut [&mut [R]; MAX_SLOTS])) {
        if let (Target::Same(param), Source::Same(grad)) = (&mut self.param, &self.grad) {
            return f(param, grad, &mut self.slots.each_mut().map(|s| &mut **s));
        }
        let (mut param_block, mut grad_block) = ([R::default(); BLOCK], [R::default(); BLOCK]);
        let len = self.grad.len();
        for at in (0..len).step_by(BLOCK) {
            let range = at..len.min(at + BLOCK);
            let (param, grad) = (&mut param_block[..range.len()], &mut grad_block[..range.len()]);
            self.grad.load(at, grad);
            let slots = &mut self.slots.each_mut().map(|s| part(s, &range));
            if let Some(master) = &mut self.master {
                let master = &mut master[range];
                self.param.adopt_written(at, master, param);
                f(master, grad, slots);
                self.param.store(at, master, None);
            } else {
                self.param.source().load(at, param);
                f(param, grad, slots);
                self.param.store(at, param, self.noise.map(|key| (key, self.start + at)));
            }
        }
    }

    /// Calls `f(parameter, gradient, slots)` on the same blocks and stores no parameter.
    pub fn read_blocks(&mut self, mut f: impl FnMut(&[R], &[R], &mut [&mut [R]; MAX_SLOTS])) {
        if let (Target::Same(param), Source::Same(grad)) = (&self.param, &self.grad) {
            return f(param, grad, &mut self.slots.each_mut().map(|s| &mut **s));
        }
        let (mut param_block, mut grad_block) = ([R::default(); BLOCK], [R::default(); BLOCK]);
        let len = self.grad.len();
        for at in (0..len).step_by(BLOCK) {
            let range = at..len.min(at + BLOCK);
            let (param, grad) = (&mut param_block[..range.len()], &mut grad_block[..range.len()]);
            self.grad.load(at, grad);
            let slots = &mut self.slots.each_mut().map(|s| part(s, &range));
            if let Some(master) = &mut self.master {
                let master = &mut master[range];
                self.param.adopt_written(at, master, param);
                f(master, grad, slots);
            } else {
                self.param.source().load(at, param);
                f(param, grad, slots);
            }
        }
    }
}

/// A range of a slice that is empty where it is not needed.
fn part<'a, R>(all: &'a mut [R], range: &std::ops::Range<usize>) -> &'a mut [R] {
    if all.is_empty() { all } else { &mut all[range.clone()] }
}
