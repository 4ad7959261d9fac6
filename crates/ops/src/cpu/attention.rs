//! Causal attention of several heads.

use crate::{
    cpu::dropout::Masks,
    cpu::product::{Matrix, Product},
    cpu::tensor::{Reading, copy, fail, is_fused, is_half, tensor, vec_written, wide},
    cpu::vector::{LANES, exp, max, sum, sum2},
    device,
    graph::{differentiable, plain},
};
use candle_core::{D, Result, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// How rows are divided into windows, and their columns into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads.
    pub heads: usize,
    /// Rows of a window.
    pub context: usize,
}

impl Heads {
    /// Checks the shape (rows, columns) of queries, keys and values; the number of columns of a head.
    fn head_width(self, rows: usize, columns: usize) -> Result<usize> {
        let Self { heads, context } = self;
        if heads == 0 || context == 0 || !rows.is_multiple_of(context) || !columns.is_multiple_of(3 * heads) {
            fail!(
                "causal_attention: qkv [{rows}, {columns}] must have a multiple of {context} rows (windows) and of 3 x {heads} \
                 columns (queries, keys and values of each head), and both numbers must be at least 1"
            );
        }
        Ok(columns / (3 * heads))
    }
}

/// `softmax(q k^T / sqrt(d)) v` of each head (Vaswani et al. 2017, arXiv:1706.03762, section 3.2), where a row attends to
/// itself and the rows before it in its window.
///
/// `qkv` is (n * context, 3 * heads * d): queries of all heads, then keys, then values. The result is
/// (n * context, heads * d). With `masks`, the probabilities are dropped by them: window `i` and head `j` have the mask
/// `i * heads + j`, whose values go row by row up to the diagonal.
///
/// # Errors
/// When the rows are no whole windows, or the columns do not divide into queries, keys and values of the heads.
pub fn causal_attention(qkv: &Tensor, heads: Heads, masks: Option<Masks>) -> Result<Tensor> {
    let (rows, columns) = qkv.dims2()?;
    heads.head_width(rows, columns)?;
    if device::runs(qkv) {
        return device::causal_attention(qkv, heads, masks.as_ref());
    }
    if is_half(qkv) {
        return causal_attention(&wide(qkv)?, heads, masks)?.to_dtype(qkv.dtype());
    }
    if is_fused(qkv) { fused(qkv, heads, masks) } else { composed(qkv, heads, masks) }
}

/// `q k^T / sqrt(d)` of each head before masking: (n, heads, context, context). For looking at; it has candle's gradient.
///
/// # Errors
/// As [`causal_attention`].
pub fn attention_logits(qkv: &Tensor, heads: Heads) -> Result<Tensor> {
    let [q, k, _] = split(qkv, heads)?;
    let d = q.dim(D::Minus1)?;
    q.matmul(&k.t()?)? * (1.0 / (d as f64).sqrt())
}

/// Queries, keys and values, each (n, heads, context, d).
fn split(qkv: &Tensor, heads: Heads) -> Result<[Tensor; 3]> {
    let (rows, columns) = qkv.dims2()?;
    let (width, Heads { heads, context }) = (heads.head_width(rows, columns)?, heads);
    let parts = qkv.reshape((rows / context, context, 3, heads, width))?;
    let part = |i| parts.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    Ok([part(0)?, part(1)?, part(2)?])
}

fn composed(qkv: &Tensor, heads: Heads, masks: Option<Masks>) -> Result<Tensor> {
    let [q, k, v] = split(qkv, heads)?;
    let (n, count, context, d) = q.dims4()?;
    let logits = (q.matmul(&k.t()?)? * (1.0 / (d as f64).sqrt()))?;
    let future: Vec<f32> =
        (0..context * context).map(|i| if i % context > i / context { f32::NEG_INFINITY } else { 0.0 }).collect();
    let future = Tensor::from_vec(future, (context, context), qkv.device())?.to_dtype(qkv.dtype())?;
    let mut probabilities = candle_nn::ops::softmax(&logits.broadcast_add(&future)?, D::Minus1)?;
    if let Some(masks) = masks {
        let mut factors = vec![0f32; n * count * context * context];
        for (index, mask) in factors.chunks_exact_mut(context * context).enumerate() {
            let mut stays = masks.mask(index);
            for (row, factors) in mask.chunks_exact_mut(context).enumerate() {
                factors[..=row].fill_with(|| if stays() { masks.scale() as f32 } else { 0.0 });
            }
        }
        let factors = Tensor::from_vec(factors, (n, count, context, context), qkv.device())?;
        probabilities = (probabilities * factors.to_dtype(qkv.dtype())?)?;
    }
    probabilities.matmul(&v)?.transpose(1, 2)?.reshape((n * context, count * d))
}

fn fused(qkv: &Tensor, heads: Heads, masks: Option<Masks>) -> Result<Tensor> {
    let [input] = plain([qkv])?;
    let (rows, columns) = qkv.dims2()?;
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
    differentiable("causal_attention", &[qkv], y, move |dy| {
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
    })
}

/// Rows that are computed at once, with the columns up to the last one's diagonal. A multiple of the lanes.
const BLOCK: usize = 32;

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
        (0..self.context).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(self.context))
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

/// Each row's softmax of `scale` times its logits up to the diagonal.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};
    use candle_core::{DType, Device};

    const HEADS: Heads = Heads { heads: 2, context: 37 };

    /// Two windows of 37 rows, two blocks that do not fill the lanes, and two heads of 3 columns.
    fn qkv() -> Tensor {
        wave(&[2 * 37, 3 * 2 * 3], 1.5, 0.0)
    }

    #[test]
    fn values_and_gradients() {
        check([&qkv()], |[qkv]| causal_attention(qkv, HEADS, None));
    }

    #[test]
    fn values_and_gradients_with_dropout() {
        let masks = || Some(Masks::new(0.3, [1; 32]).unwrap());
        check([&qkv()], |[qkv]| causal_attention(qkv, HEADS, masks()));
        let rows = |masks| {
            let y = causal_attention(&qkv().to_dtype(DType::F32).unwrap(), HEADS, masks).unwrap();
            y.to_vec2::<f32>().unwrap()
        };
        assert_ne!(rows(masks()), rows(None));
    }

    /// One head of one column, two rows: the second attends to both with softmax(q k_1, q k_2).
    #[test]
    fn two_rows_by_hand() {
        let qkv = Tensor::new(&[[1f32, 2.0, 3.0], [2.0, -1.0, 5.0]], &Device::Cpu).unwrap();
        let heads = Heads { heads: 1, context: 2 };
        let y = causal_attention(&qkv, heads, None).unwrap().to_vec2::<f32>().unwrap();
        let p = 1.0 / (1.0 + (-6f32).exp());
        assert_eq!(y[0], [3.0]);
        assert!((y[1][0] - (3.0 * p + 5.0 * (1.0 - p))).abs() < 1e-6, "{y:?}");
        let logits = attention_logits(&qkv, heads).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(logits, [2.0, -1.0, 4.0, -2.0]);
    }

    /// A key that is not a number makes its own row and the later ones that.
    #[test]
    fn what_is_not_a_number_spreads_forward() {
        let mut values = vec![0.5f32; 3 * 3];
        values[3 + 1] = f32::NAN;
        let qkv = Tensor::from_vec(values, (3, 3), &Device::Cpu).unwrap();
        let y = causal_attention(&qkv, Heads { heads: 1, context: 3 }, None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y.iter().map(|y| y[0].is_nan()).collect::<Vec<_>>(), [false, true, true]);
        assert!(causal_attention(&qkv, Heads { heads: 1, context: 2 }, None).is_err());
    }
}
