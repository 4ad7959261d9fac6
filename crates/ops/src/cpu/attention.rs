//! Causal attention of several heads: the loops.

use crate::{
    cpu::{
        number::exp,
        product::{Matrix, Product},
        simd::simd,
        tensor::{Reading, copy, tensor, vec_written},
        vector::{LANES, max, sum, sum2},
    },
    shape::{dropout::DropoutMasks, gradients::Backward, heads::Heads},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// The value of [`crate::causal_attention()`], and its gradient.
pub(crate) fn causal_attention(
    input: Tensor,
    heads: Heads,
    masks: Option<DropoutMasks>,
) -> Result<(Tensor, impl Backward)> {
    let (rows, columns) = input.dims2()?;
    let Heads { heads: count, context } = heads;
    let head_width = heads.head_width(rows, columns)?;
    let width = count * head_width;
    let head = move |head: usize| Head { head, width, head_width, context };
    // What a probability that stays is multiplied by.
    let scale = masks.as_ref().map(|masks| masks.scale() as f32);
    // For the gradient: (n, heads, context, context), 0 above the diagonal. Those that are dropped have a minus sign.
    let mut probabilities = vec![0f32; rows * context * count];
    let y = {
        let read = Reading::new(&input);
        let values = read.slice::<f32>()?;
        let write = |out: &mut [MaybeUninit<f32>]| {
            // A window is one task. Its order within is fixed, so the bits are the same for any number of threads.
            let windows =
                out.par_chunks_mut(context * width).zip(probabilities.par_chunks_mut(count * context * context));
            windows.zip(values.par_chunks(context * columns)).enumerate().for_each_init(
                Scratch::default,
                |scratch, (window, ((out, probabilities), qkv))| {
                    for (index, probabilities) in probabilities.chunks_exact_mut(context * context).enumerate() {
                        head(index).attend(qkv, probabilities, scratch);
                        if let Some(masks) = &masks {
                            let mut stays = masks.mask(window * count + index);
                            for (row, probabilities) in probabilities.chunks_exact_mut(context).enumerate() {
                                for p in &mut probabilities[..=row] {
                                    *p = if stays() { *p } else { -*p };
                                }
                            }
                        }
                        head(index).mix(qkv, probabilities, scale, out, scratch);
                    }
                },
            );
        };
        // SAFETY: each head of each window writes its columns of its rows, and these are all.
        tensor(unsafe { vec_written(rows * width, write) }, (rows, width))?
    };
    let backward = move |dy: &Tensor| {
        let [qkv_read, dy_read] = [&input, dy].map(Reading::new);
        let (values, dys) = (qkv_read.slice::<f32>()?, dy_read.slice::<f32>()?);
        let write = |dqkv: &mut [MaybeUninit<f32>]| {
            let windows = values.par_chunks(context * columns).zip(dys.par_chunks(context * width));
            let windows = windows.zip(probabilities.par_chunks(count * context * context));
            dqkv.par_chunks_mut(context * columns).zip(windows).for_each_init(
                Scratch::default,
                |scratch, (dqkv, ((qkv, dy), probabilities))| {
                    for (index, probabilities) in probabilities.chunks_exact(context * context).enumerate() {
                        head(index).backward(qkv, probabilities, scale, dy, dqkv, scratch);
                    }
                },
            );
        };
        // SAFETY: each head of each window writes its columns of its rows, and these are all.
        Ok(vec![Some(tensor(unsafe { vec_written(values.len(), write) }, input.shape())?)])
    };
    Ok((y, backward))
}

/// Rows that are computed at once, with the columns up to the last one's diagonal. A multiple of the lanes.
const ROWS_PER_BLOCK: usize = 32;

/// Where the rows of a head are in those of a window.
#[derive(Clone, Copy)]
struct Head {
    head: usize,
    /// Columns of all heads.
    width: usize,
    /// Columns of a head.
    head_width: usize,
    /// Rows of a window.
    context: usize,
}

/// Queries, keys or values.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// What a thread needs for a head, row after row.
#[derive(Default)]
struct Scratch {
    /// (block, columns)
    logits: Vec<f32>,
    weights: Vec<f32>,
    /// (block or context, head_width)
    out: Vec<f32>,
    grad_key: Vec<f32>,
    grad_value: Vec<f32>,
}

/// The first `len` values of `buffer`, which is made long enough.
fn first(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Head {
    /// The blocks of rows.
    fn blocks(self) -> impl DoubleEndedIterator<Item = Range<usize>> {
        (0..self.context).step_by(ROWS_PER_BLOCK).map(move |start| start..(start + ROWS_PER_BLOCK).min(self.context))
    }

    fn start(self, part: Part, row: usize) -> usize {
        row * 3 * self.width + part as usize * self.width + self.head * self.head_width
    }

    /// The rows from `row` on.
    fn part(self, qkv: &[f32], part: Part, row: usize) -> Matrix<'_, f32> {
        Matrix::rows(&qkv[self.start(part, row)..], 3 * self.width)
    }

    /// The head's columns of `out` from `row` on.
    fn out(self, out: &[f32], row: usize) -> Matrix<'_, f32> {
        Matrix::rows(&out[row * self.width + self.head * self.head_width..], self.width)
    }

    /// Writes `values` (row after row) to the columns of a part.
    fn write(self, values: &[f32], part: Part, first: usize, grad_qkv: &mut [MaybeUninit<f32>]) {
        for (row, values) in (first..).zip(values.chunks_exact(self.head_width)) {
            copy(values, &mut grad_qkv[self.start(part, row)..][..self.head_width]);
        }
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// The probabilities; what is above the diagonal stays 0.
    fn attend(self, qkv: &[f32], probabilities: &mut [f32], scratch: &mut Scratch) {
        for block in self.blocks() {
            let product = Product { rows: block.len(), columns: block.end, inner: self.head_width };
            let logits = first(&mut scratch.logits, block.len() * block.end);
            let key = self.part(qkv, Part::Key, 0).transposed();
            product.set(logits, self.part(qkv, Part::Query, block.start), key);
            softmax(
                logits,
                block.clone(),
                self.scale(),
                self.context,
                &mut probabilities[block.start * self.context..],
            );
        }
    }

    /// The head's columns of `out`: each row the sum of the values by its probabilities.
    fn mix(
        self,
        qkv: &[f32],
        probabilities: &[f32],
        scale: Option<f32>,
        out: &mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) {
        for block in self.blocks() {
            let weights = self.kept(probabilities, block.clone(), scale, &mut scratch.weights);
            let product = Product { rows: block.len(), columns: self.head_width, inner: block.end };
            let values = first(&mut scratch.out, block.len() * self.head_width);
            product.set(values, weights, self.part(qkv, Part::Value, 0));
            for (row, values) in block.zip(values.chunks_exact(self.head_width)) {
                copy(values, &mut out[row * self.width + self.head * self.head_width..][..self.head_width]);
            }
        }
    }

    /// The block's probabilities, dropped where they have a minus sign.
    fn kept<'a>(
        self,
        probabilities: &'a [f32],
        block: Range<usize>,
        scale: Option<f32>,
        buffer: &'a mut Vec<f32>,
    ) -> Matrix<'a, f32> {
        let probabilities = &probabilities[block.start * self.context..];
        let Some(scale) = scale else { return Matrix::rows(probabilities, self.context) };
        let weights = first(buffer, block.len() * block.end);
        for (weights, p) in weights.chunks_exact_mut(block.end).zip(probabilities.chunks_exact(self.context)) {
            for (weight, &p) in weights.iter_mut().zip(p) {
                // Not `max`, which would turn what is not a number into 0.
                *weight = if p < 0.0 { 0.0 } else { p * scale };
            }
        }
        Matrix::rows(weights, block.end)
    }

    /// Writes the gradient by the head's queries, keys and values.
    ///
    /// With the probabilities `p`, the kept ones `w = kept(p) scale` and `u_ij = grad_i . v_j [kept] scale`: the gradient by
    /// the logits is `s_ij = p_ij (u_ij - sum_k p_ik u_ik)`, and `grad_q_i = sum_j s_ij k_j / sqrt(d)`,
    /// `grad_k_j = sum_i s_ij q_i / sqrt(d)`, `grad_v_j = sum_i w_ij grad_i`.
    fn backward(
        self,
        qkv: &[f32],
        probabilities: &[f32],
        scale: Option<f32>,
        grad: &[f32],
        grad_qkv: &mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) {
        let Self { head_width, context, .. } = self;
        let Scratch { logits, weights, out, grad_key, grad_value } = scratch;
        let grad_key = first(grad_key, context * head_width);
        let grad_value = first(grad_value, context * head_width);
        // The last block has all columns: what it sets, the others add to.
        for block in self.blocks().rev() {
            let (rows, columns) = (block.len(), block.end);
            let s = first(logits, rows * columns);
            let grad = self.out(grad, block.start);
            let value = self.part(qkv, Part::Value, 0).transposed();
            Product { rows, columns, inner: head_width }.set(s, grad, value);
            let p = &probabilities[block.start * context..];
            through_softmax(s, p, block.clone(), context, self.scale(), scale.unwrap_or(1.0));
            let s = Matrix::rows(s, columns);
            let grad_query = first(out, rows * head_width);
            Product { rows, columns: head_width, inner: columns }.set(grad_query, s, self.part(qkv, Part::Key, 0));
            self.write(grad_query, Part::Query, block.start, grad_qkv);

            let product = Product { rows: columns, columns: head_width, inner: rows };
            let query = self.part(qkv, Part::Query, block.start);
            let kept = self.kept(probabilities, block.clone(), scale, weights).transposed();
            let (grad_key, grad_value) =
                (&mut grad_key[..columns * head_width], &mut grad_value[..columns * head_width]);
            if columns == context {
                product.set(grad_key, s.transposed(), query);
                product.set(grad_value, kept, grad);
            } else {
                product.add(grad_key, s.transposed(), query);
                product.add(grad_value, kept, grad);
            }
        }
        self.write(grad_key, Part::Key, 0, grad_qkv);
        self.write(grad_value, Part::Value, 0, grad_qkv);
    }
}

/// The columns of a block up to a row's diagonal, and on to the end of a vector, because whole vectors are quicker.
#[inline(always)]
fn columns(row: usize, block: &Range<usize>) -> usize {
    ((row / LANES + 1) * LANES).min(block.end)
}

simd! {
    /// Each row's softmax of `scale` times its logits up to the diagonal.
    fn softmax(logits: &mut [f32], block: Range<usize>, scale: f32, context: usize, probabilities: &mut [f32]) {
        let rows = logits.chunks_exact_mut(block.end).zip(probabilities.chunks_exact_mut(context));
        for (row, (logits, probabilities)) in (block.start..).zip(rows) {
            let columns = columns(row, &block);
            let logits = &mut logits[..columns];
            logits[row + 1..].fill(f32::NEG_INFINITY);
            // A logit that is not a number makes its own probability, and so the sum, not a number.
            let max = max(logits);
            for x in logits.iter_mut() {
                *x = exp((*x - max) * scale);
            }
            logits[row + 1..].fill(0.0);
            let scale = 1.0 / sum(logits, |x| x);
            for (p, x) in probabilities[..columns].iter_mut().zip(logits) {
                *p = *x * scale;
            }
        }
    }

    /// Turns `grad_i . v_j` into the gradient by the products of queries and keys.
    fn through_softmax(
        s: &mut [f32],
        probabilities: &[f32],
        block: Range<usize>,
        context: usize,
        scale: f32,
        dropout_scale: f32,
    ) {
        let rows = s.chunks_exact_mut(block.end).zip(probabilities.chunks_exact(context));
        for (row, (u, p)) in (block.start..).zip(rows) {
            let columns = columns(row, &block);
            // A dropped probability's gradient is 0, and so is what is above the diagonal, whose probability is.
            u[columns..].fill(0.0);
            let (u, p) = (&mut u[..columns], &p[..columns]);
            for (u, &p) in u.iter_mut().zip(p) {
                *u = if p < 0.0 { 0.0 } else { *u * dropout_scale };
            }
            let mean = sum2(u, p, |u, p| u * p.abs());
            for (u, p) in u.iter_mut().zip(p) {
                *u = p.abs() * (*u - mean) * scale;
            }
        }
    }
}
