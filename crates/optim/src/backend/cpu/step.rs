//! How the elements of all tensors are shared among the threads.
//!
//! All tensors are cut into chunks of a fixed length and the threads take chunks (`share.rs`), so that one large tensor and many
//! small ones both occupy every core. Sums are formed per chunk and added in order: the bits do not depend on the
//! number of threads, nor on the SIMD level, since no operation is reordered or contracted.

use super::loops::{Loops, add_scaled, apply, drop_tiny, sum_of_squares};
use super::numbers::{Compute, StepNumbers};
use super::operands::{Operands, Source};
use super::share;
use crate::formula::trust_ratio::TrustRatio;

/// Up to here one thread is faster than waking the others.
const MAX_SERIAL_ELEMENTS: usize = 32_768;

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
