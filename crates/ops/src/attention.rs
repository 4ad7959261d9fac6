//! Causal attention of several heads.

use crate::{
    dropout::Masks,
    host::{Reading, fail, is_fused, slice},
    vector::{LANES, add_scaled, exp, max, sum, sum2},
};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::sync::OnceLock;

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
    if is_fused(qkv) {
        qkv.contiguous()?.apply_op1(Attention { heads, masks, probabilities: OnceLock::new() })
    } else {
        composed(qkv, heads, masks)
    }
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

struct Attention {
    heads: Heads,
    masks: Option<Masks>,
    /// For the gradient: (n, heads, context, context), 0 above the diagonal. Those that are dropped have a minus sign.
    probabilities: OnceLock<Vec<f32>>,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = slice::<f32>(storage, layout)?;
        let (rows, columns) = layout.shape().dims2()?;
        let Heads { heads, context } = self.heads;
        let width = heads * self.heads.head_width(rows, columns)?;
        let mut out = vec![0f32; rows * width];
        let mut probabilities = vec![0f32; rows * context * heads];
        // A window is one task. Its order within is fixed, so the bits are the same for any number of threads.
        let windows = out.par_chunks_mut(context * width).zip(probabilities.par_chunks_mut(heads * context * context));
        windows.zip(qkv.par_chunks(context * columns)).enumerate().for_each(|(window, ((out, probabilities), qkv))| {
            for head in 0..heads {
                let place = Place { head, width, head_width: width / heads, context };
                let probabilities = &mut probabilities[head * context * context..][..context * context];
                attend(qkv, place, probabilities);
                if let Some(masks) = &self.masks {
                    let mut stays = masks.mask(window * heads + head);
                    for (row, probabilities) in probabilities.chunks_exact_mut(context).enumerate() {
                        for p in &mut probabilities[..=row] {
                            *p = if stays() { *p } else { -*p };
                        }
                    }
                }
                let scale = self.masks.as_ref().map_or(1.0, |masks| masks.scale() as f32);
                mix(qkv, place, probabilities, scale, out);
            }
        });
        // A second forward pass of the same operation would give the same.
        let _ = self.probabilities.set(probabilities);
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, columns) = qkv.dims2()?;
        let Heads { heads, context } = self.heads;
        let width = heads * self.heads.head_width(rows, columns)?;
        let probabilities = self.probabilities.get().expect("the forward pass has set them");
        let scale = self.masks.as_ref().map_or(1.0, |masks| masks.scale() as f32);
        let grad = grad.contiguous()?;
        let (qkv_read, grad_read) = (Reading::new(qkv), Reading::new(&grad));
        let (values, grads) = (qkv_read.slice::<f32>()?, grad_read.slice::<f32>()?);
        let mut grad_qkv = vec![0f32; values.len()];
        let windows = values.par_chunks(context * columns).zip(grads.par_chunks(context * width));
        let windows = windows.zip(probabilities.par_chunks(heads * context * context));
        grad_qkv.par_chunks_mut(context * columns).zip(windows).for_each(|(grad_qkv, ((qkv, grad), probabilities))| {
            for head in 0..heads {
                let place = Place { head, width, head_width: width / heads, context };
                let probabilities = &probabilities[head * context * context..][..context * context];
                backward(qkv, place, probabilities, scale, grad, grad_qkv);
            }
        });
        Ok(Some(Tensor::from_vec(grad_qkv, qkv.shape(), qkv.device())?))
    }
}

/// Where the rows of a head are in those of a window.
#[derive(Clone, Copy)]
struct Place {
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

impl Place {
    #[inline(always)]
    fn start(self, part: Part, row: usize) -> usize {
        row * 3 * self.width + part as usize * self.width + self.head * self.head_width
    }

    #[inline(always)]
    fn row(self, qkv: &[f32], part: Part, row: usize) -> &[f32] {
        &qkv[self.start(part, row)..][..self.head_width]
    }

    #[inline(always)]
    fn row_mut(self, qkv: &mut [f32], part: Part, row: usize) -> &mut [f32] {
        &mut qkv[self.start(part, row)..][..self.head_width]
    }

    /// (head_width, context).
    #[inline(always)]
    fn transposed(self, qkv: &[f32], part: Part) -> Vec<f32> {
        let mut transposed = vec![0f32; self.head_width * self.context];
        for row in 0..self.context {
            for (column, &x) in self.row(qkv, part, row).iter().enumerate() {
                transposed[column * self.context + row] = x;
            }
        }
        transposed
    }

    #[inline(always)]
    fn scale(self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// The columns up to the diagonal, and on to the end of a vector, because whole vectors are quicker.
    #[inline(always)]
    fn columns(self, row: usize) -> usize {
        ((row / LANES + 1) * LANES).min(self.context)
    }
}

/// The probabilities of a head; what is above the diagonal stays 0.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attend(qkv: &[f32], place: Place, probabilities: &mut [f32]) {
    let keys = place.transposed(qkv, Part::Key);
    for (row, probabilities) in probabilities.chunks_exact_mut(place.context).enumerate() {
        let columns = place.columns(row);
        let logits = &mut probabilities[..columns];
        for (x, keys) in place.row(qkv, Part::Query, row).iter().zip(keys.chunks_exact(place.context)) {
            add_scaled(logits, x * place.scale(), &keys[..columns]);
        }
        logits[row + 1..].fill(f32::NEG_INFINITY);
        // A logit that is not a number makes its own probability, and so the sum, not a number.
        let max = max(logits);
        for x in logits.iter_mut() {
            *x = exp(*x - max);
        }
        logits[row + 1..].fill(0.0);
        let scale = 1.0 / sum(logits, |x| x);
        for x in logits {
            *x *= scale;
        }
    }
}

/// The head's part of `out`: each row the sum of the values by its probabilities.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn mix(qkv: &[f32], place: Place, probabilities: &[f32], scale: f32, out: &mut [f32]) {
    for (row, (probabilities, out)) in
        probabilities.chunks_exact(place.context).zip(out.chunks_exact_mut(place.width)).enumerate()
    {
        let out = &mut out[place.head * place.head_width..][..place.head_width];
        for (column, &p) in probabilities[..=row].iter().enumerate() {
            add_scaled(out, kept(p) * scale, place.row(qkv, Part::Value, column));
        }
    }
}

/// A probability, or 0 if it is dropped.
#[inline(always)]
fn kept(p: f32) -> f32 {
    // Not `max`, which would turn what is not a number into 0.
    if p < 0.0 { 0.0 } else { p }
}

/// Adds the gradient by a head's queries, keys and values to `grad_qkv`.
///
/// With the probabilities `p`, the kept ones `w = kept(p) scale` and `u_ij = grad_i . v_j [kept] scale`: the gradient by the
/// logits is `s_ij = p_ij (u_ij - sum_k p_ik u_ik)`, and `grad_q_i = sum_j s_ij k_j / sqrt(d)`,
/// `grad_k_j = sum_i s_ij q_i / sqrt(d)`, `grad_v_j = sum_i w_ij grad_i`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward(qkv: &[f32], place: Place, probabilities: &[f32], scale: f32, grad: &[f32], grad_qkv: &mut [f32]) {
    let transposed = place.transposed(qkv, Part::Value);
    let mut logits = vec![0f32; place.context];
    let mut row_grad = vec![0f32; place.head_width];
    for (row, (probabilities, grad)) in
        probabilities.chunks_exact(place.context).zip(grad.chunks_exact(place.width)).enumerate()
    {
        let grad = &grad[place.head * place.head_width..][..place.head_width];
        let columns = place.columns(row);
        let (u, p) = (&mut logits[..columns], &probabilities[..columns]);
        u.fill(0.0);
        for (x, values) in grad.iter().zip(transposed.chunks_exact(place.context)) {
            add_scaled(u, x * scale, &values[..columns]);
        }
        for (u, &p) in u.iter_mut().zip(p) {
            *u = if p < 0.0 { 0.0 } else { *u };
        }
        let mean = sum2(u, p, |u, p| u * p.abs());
        for (u, p) in u.iter_mut().zip(p) {
            *u = p.abs() * (*u - mean) * place.scale();
        }
        row_grad.fill(0.0);
        for (column, (&s, &p)) in u[..=row].iter().zip(p).enumerate() {
            add_scaled(&mut row_grad, s, place.row(qkv, Part::Key, column));
            add_scaled(place.row_mut(grad_qkv, Part::Key, column), s, place.row(qkv, Part::Query, row));
            add_scaled(place.row_mut(grad_qkv, Part::Value, column), kept(p) * scale, grad);
        }
        place.row_mut(grad_qkv, Part::Query, row).copy_from_slice(&row_grad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};
    use candle_core::{DType, Device};

    const HEADS: Heads = Heads { heads: 2, context: 19 };

    /// Two windows of 19 rows, which do not fill the lanes, and two heads of 3 columns.
    fn qkv() -> Tensor {
        wave(&[2 * 19, 3 * 2 * 3], 1.5, 0.0)
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

    #[test]
    fn what_is_not_a_number_spreads_forward_only() {
        let mut values = vec![0.5f32; 3 * 3];
        values[3 + 1] = f32::NAN;
        let qkv = Tensor::from_vec(values, (3, 3), &Device::Cpu).unwrap();
        let y = causal_attention(&qkv, Heads { heads: 1, context: 3 }, None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y.iter().map(|y| y[0].is_nan()).collect::<Vec<_>>(), [false, true, true]);
        assert!(causal_attention(&qkv, Heads { heads: 1, context: 2 }, None).is_err());
    }
}
