//! A matrix product with a transposed matrix, and what stands before it, in f32: the passes.

use crate::{
    cpu::{
        gelu, layer_norm,
        product::{Matrix, Product},
        tensor::{Reading, copy, gradient, tensor, vec_written, written},
    },
    shape::gradients::Backward,
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows of `x` that a task takes, at least: enough that it pays to bring the weight into the order that the product wants.
const MIN_ROWS_PER_TASK: usize = 128;
/// Rows of the weight's gradient that a task takes, at least.
const MIN_OUTPUTS_PER_TASK: usize = 64;
/// Tasks of a product, where they take more than the least: each brings all of a factor into order, so that many cost time and few
/// leave threads without work. The bits depend on it, and on no number of threads.
const MAX_TASKS: usize = 16;

fn rows_of_task(n: usize) -> usize {
    MIN_ROWS_PER_TASK.max(n.div_ceil(MAX_TASKS))
}

/// What happens to the rows before the product of [`crate::fused_linear()`], in one pass with it.
#[derive(Clone, Copy)]
pub(crate) enum Fused {
    Nothing,
    LayerNorm { eps: f32 },
    Gelu,
}

/// The gradients by the arguments.
struct Gradients {
    x: Option<Vec<f32>>,
    weight: Vec<f32>,
    norm: Vec<f32>,
}

impl Fused {
    fn forward(&self, n: usize, x: &[f32], weight: &[f32], third: &[f32]) -> Vec<f32> {
        let (inputs, outputs) = (x.len() / n, weight.len() / (x.len() / n));
        let rows = rows_of_task(n);
        let write = |y: &mut [MaybeUninit<f32>]| {
            let chunks = y.par_chunks_mut(rows * outputs).zip(x.par_chunks(rows * inputs)).enumerate();
            chunks.for_each_init(Vec::new, |buffer, (chunk, (y, x))| {
                let product = Product { rows: x.len() / inputs, columns: outputs, inner: inputs };
                buffer.resize(x.len(), MaybeUninit::uninit());
                let x = match self {
                    Fused::Nothing => x,
                    Fused::LayerNorm { eps } => {
                        layer_norm::forward(x, third, *eps, buffer);
                        // SAFETY: all were just written.
                        unsafe { written(buffer) }
                    }
                    Fused::Gelu => {
                        gelu::forward(x, buffer);
                        // SAFETY: all were just written.
                        unsafe { written(buffer) }
                    }
                };
                let (x, weight) = (Matrix::rows(x, inputs), Matrix::rows(weight, inputs).transposed());
                if !third.is_empty() && !matches!(self, Fused::LayerNorm { .. }) {
                    copy(&third[chunk * rows * outputs..][..y.len()], y);
                    // SAFETY: all were just copied.
                    product.add(unsafe { written(y) }, x, weight);
                } else {
                    product.write(y, x, weight);
                }
            });
        };
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        unsafe { vec_written(n * outputs, write) }
    }

    /// `wanted`: whether the gradient by x is.
    fn backward(&self, n: usize, x: &[f32], weight: &[f32], norm: &[f32], grad: &[f32], wanted: bool) -> Gradients {
        let (inputs, outputs) = (x.len() / n, grad.len() / n);
        let rows = rows_of_task(n);
        let mut parts = Vec::new();
        // What stood before the product, made again on the way, since the weight's gradient needs it.
        let mut again = Vec::with_capacity(if matches!(self, Fused::Nothing) { 0 } else { x.len() });
        let write = |grad_x: &mut [MaybeUninit<f32>]| {
            let places = again.spare_capacity_mut();
            let chunks = grad_x.par_chunks_mut(rows * inputs).zip(grad.par_chunks(rows * outputs));
            let through = |grad_x: &mut [MaybeUninit<f32>], grad: &[f32]| {
                let product = Product { rows: grad.len() / outputs, columns: inputs, inner: outputs };
                product.write(grad_x, Matrix::rows(grad, outputs), Matrix::rows(weight, inputs));
            };
            match self {
                Fused::Nothing => chunks.for_each(|(grad_x, grad)| through(grad_x, grad)),
                Fused::Gelu | Fused::LayerNorm { .. } => {
                    let chunks =
                        chunks.zip(x.par_chunks(rows * inputs)).zip(places[..x.len()].par_chunks_mut(rows * inputs));
                    let chunks = chunks.map(|(((grad_x, grad), x), again)| {
                        through(grad_x, grad);
                        // SAFETY: the product has written all.
                        let grad_x = unsafe { written(grad_x) };
                        let mut grad_norm = vec![0f32; norm.len()];
                        match self {
                            Fused::LayerNorm { eps } => {
                                layer_norm::again_and_backward(x, norm, *eps, again, grad_x, &mut grad_norm);
                            }
                            _ => gelu::again_and_backward(x, again, grad_x),
                        }
                        grad_norm
                    });
                    parts = chunks.collect::<Vec<_>>();
                }
            }
        };
        let plain = matches!(self, Fused::Nothing);
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        let grad_x = (wanted || !plain).then(|| unsafe { vec_written(x.len(), write) });
        if !plain {
            // SAFETY: layer norm's and gelu's loops have written each chunk of them.
            unsafe { again.set_len(x.len()) };
        }
        let z = if plain { x } else { &again };
        let tasks = outputs.div_ceil(MIN_OUTPUTS_PER_TASK.max(outputs.div_ceil(MAX_TASKS)));
        let per_task = outputs.div_ceil(tasks);
        let write = |grad_weight: &mut [MaybeUninit<f32>]| {
            grad_weight.par_chunks_mut(per_task * inputs).enumerate().for_each(|(task, grad_weight)| {
                let product = Product { rows: grad_weight.len() / inputs, columns: inputs, inner: n };
                let grad = Matrix::rows(&grad[task * per_task..], outputs).transposed();
                product.write(grad_weight, grad, Matrix::rows(z, inputs));
            });
        };
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        let grad_weight = unsafe { vec_written(weight.len(), write) };
        let grad_norm = (0..norm.len()).map(|i| parts.iter().map(|part: &Vec<f32>| part[i]).sum::<f32>()).collect();
        Gradients { x: grad_x.filter(|_| wanted), weight: grad_weight, norm: grad_norm }
    }

    /// The value, and those of its gradients that are wanted. `third`: the layer norm's weight if there is one, and the residual else.
    pub fn apply(
        self,
        [x, weight]: [Tensor; 2],
        third: Option<Tensor>,
        wanted: Vec<bool>,
    ) -> Result<(Tensor, impl Backward)> {
        let is_norm = matches!(self, Fused::LayerNorm { .. });
        let (n, outputs) = (x.dim(0)?, weight.dim(0)?);
        let y = {
            let [x_read, weight_read] = [&x, &weight].map(Reading::new);
            let third_read = third.as_ref().map(Reading::new);
            let third = third_read.as_ref().map_or(Ok(&[][..]), Reading::slice)?;
            tensor(self.forward(n, x_read.slice()?, weight_read.slice()?, third), (n, outputs))?
        };
        let norm = third.filter(|_| is_norm);
        let gradients = move |dy: &Tensor| {
            let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
            let norm_read = norm.as_ref().map(Reading::new);
            let norms = norm_read.as_ref().map_or(Ok(&[][..]), Reading::slice)?;
            let gradients = self.backward(n, x_read.slice()?, weight_read.slice()?, norms, dy_read.slice()?, wanted[0]);
            let by_third = match &norm {
                Some(norm) => gradient(wanted[2].then_some(gradients.norm), norm)?,
                // The residual's gradient is the sum's.
                None => Some(dy.clone()),
            };
            Ok(vec![gradient(gradients.x, &x)?, gradient(wanted[1].then_some(gradients.weight), &weight)?, by_third])
        };
        Ok((y, gradients))
    }
}
