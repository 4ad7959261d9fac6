//! Causal attention of several heads.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::{dropout::DropoutMasks, heads::Heads},
    side::Side,
};
use candle_core::{Result, Tensor};

/// Causal attention of several heads: `softmax(q k^T / sqrt(d)) v` of each head (Vaswani et al. 2017, arXiv:1706.03762, section 3.2),
/// where a row attends to itself and to the rows before it in its window.
///
/// `qkv` is (n context, 3 heads d): in each row the queries of all heads, then their keys, then their values. The output is
/// (n context, heads d).
///
/// With `masks` the probabilities are dropped by them. The head `j` of the window `i` has the mask `i heads + j`, whose values go row by
/// row up to the diagonal.
///
/// # Errors
/// When the rows are no whole windows, or the columns do not divide into queries, keys and values of the heads.
pub fn causal_attention(qkv: &Tensor, heads: Heads, masks: Option<DropoutMasks>) -> Result<Tensor> {
    let (rows, columns) = qkv.dims2()?;
    heads.head_width(rows, columns)?;
    match Side::of_f32(qkv) {
        Side::Device => {
            let [input] = detached_contiguous([qkv])?;
            let (y, backward) = device::attention::causal_attention(input, heads, masks.as_ref())?;
            differentiable("causal_attention", &[qkv], y, backward)
        }
        Side::Cpu => {
            let [input] = detached_contiguous([qkv])?;
            let (y, backward) = cpu::attention::causal_attention(input, heads, masks)?;
            differentiable("causal_attention", &[qkv], y, backward)
        }
        Side::CpuInF32 => causal_attention(&in_f32(qkv)?, heads, masks)?.to_dtype(qkv.dtype()),
        Side::Candle => reference::causal_attention(qkv, heads, masks),
    }
}

/// What [`causal_attention`] takes the softmax of: `q k^T / sqrt(d)` of each head before masking, (n, heads, context, context).
///
/// It is for looking at, is computed by candle, and has candle's gradient.
///
/// # Errors
/// As [`causal_attention`].
pub fn attention_logits(qkv: &Tensor, heads: Heads) -> Result<Tensor> {
    reference::attention_logits(qkv, heads)
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
        let masks = || Some(DropoutMasks::new(0.3, [1; 32]).unwrap());
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
