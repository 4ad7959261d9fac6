//! How the elements of all tensors are shared among the threads.
//!
//! All tensors are cut into chunks of a fixed length and the threads take chunks (`share.rs`), so that one large tensor and many
//! small ones both occupy every core. Sums are formed per chunk and added in order: the bits do not depend on the
//! number of threads, nor on the SIMD level, since no operation is reordered or contracted.

use super::loops::{Loops, Term, add_term, drop_tiny, sum_of_squares};
use super::numbers::{Compute, StepNumbers};
use super::operands::{Operands, Source};
use super::share;
use crate::formula::sums::MAX_SUMS;

/// Up to here one thread is faster than waking the others.
const MAX_SERIAL_ELEMENTS: usize = 32_768;

/// How to update a tensor.
pub struct Job<R> {
    pub loops: Loops<R>,
    pub scalars: Vec<R>,
    pub numbers: StepNumbers<R>,
}

impl<R: Compute> Job<R> {
    pub fn new(loops: Loops<R>, scalars: &[f64], numbers: StepNumbers<f64>) -> Self {
        Self { loops, scalars: scalars.iter().map(|s| R::from_f64(*s)).collect(), numbers: numbers.to() }
    }
}

/// Runs `f` on every item, on all threads where that pays; the results are in order.
fn for_all<T: Send, O: Send>(items: Vec<T>, elements: usize, f: impl Fn(T) -> O + Sync + Send) -> Vec<O> {
    if elements <= MAX_SERIAL_ELEMENTS { items.into_iter().map(f).collect() } else { share::map(items, f) }
}

/// Chunks, each with the index of its tensor.
type Chunks<'a, R> = Vec<(usize, Operands<'a, R>)>;

/// All chunks of all tensors, each with the index of its tensor, and the jobs.
fn chunks_of<R: Compute>(tensors: Vec<(Operands<'_, R>, Job<R>)>) -> (Chunks<'_, R>, Vec<Job<R>>) {
    let (mut chunks, mut jobs) = (Vec::with_capacity(tensors.len()), Vec::with_capacity(tensors.len()));
    for (tensor, (operands, job)) in tensors.into_iter().enumerate() {
        chunks.extend(operands.chunks().map(|chunk| (tensor, chunk)));
        jobs.push(job);
    }
    (chunks, jobs)
}

fn elements_of<R: Compute>(tensors: &[(Operands<'_, R>, Job<R>)]) -> usize {
    tensors.iter().map(|(operands, _)| operands.grad.len()).sum()
}

/// The sums of each tensor: the first pass of a formula that has any.
pub fn measure<R: Compute>(tensors: Vec<(Operands<'_, R>, Job<R>)>) -> Vec<[f64; MAX_SUMS]> {
    let elements = elements_of(&tensors);
    let (mut chunks, jobs) = chunks_of(tensors);
    let parts = for_all(chunks.iter_mut().collect(), elements, |(tensor, chunk)| {
        let Job { loops, scalars, numbers } = &jobs[*tensor];
        let mut sums = [0.0; MAX_SUMS];
        chunk.read_blocks(|param, grad, slots| {
            if numbers.smallest_state > R::default() {
                drop_tiny(numbers.smallest_state, grad, slots);
            }
            (loops.measure)(scalars, numbers, param, grad, slots, &mut sums);
        });
        sums
    });
    let mut totals = vec![[0.0; MAX_SUMS]; jobs.len()];
    for ((tensor, _), part) in chunks.iter().zip(parts) {
        for (total, part) in totals[*tensor].iter_mut().zip(part) {
            *total += part;
        }
    }
    totals
}

/// Updates all tensors.
pub fn step<R: Compute>(tensors: Vec<(Operands<'_, R>, Job<R>)>) {
    let elements = elements_of(&tensors);
    let (chunks, jobs) = chunks_of(tensors);
    for_all(chunks, elements, |(tensor, mut chunk)| {
        let Job { loops, scalars, numbers } = &jobs[tensor];
        chunk.for_blocks(|param, grad, slots| {
            if numbers.smallest_state > R::default() {
                drop_tiny(numbers.smallest_state, grad, slots);
            }
            let update = if numbers.has_options() { loops.update_with_options } else { loops.update };
            update(scalars, numbers, param, grad, slots);
        });
    });
}

/// Adds a term of each gradient, with its scale, to each parameter.
pub fn add<R: Compute>(tensors: Vec<(Operands<'_, R>, f64, Term)>) {
    let elements = tensors.iter().map(|(operands, ..)| operands.grad.len()).sum();
    let chunks = tensors.into_iter().flat_map(|(operands, scale, term)| {
        let scale = R::from_f64(scale);
        operands.chunks().map(move |chunk| (chunk, scale, term))
    });
    for_all(chunks.collect(), elements, |(mut chunk, scale, term)| {
        chunk.for_blocks(|param, grad, _| add_term(param, scale, term, grad));
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
