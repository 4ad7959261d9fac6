//! Rows of a table by their indices.

use super::{
    graph::differentiable,
    launch::{Launch, Rows, THREADS, args, empty, empty_like, size},
};
use candle_core::{Result, Tensor};

args!("embedding", Table { places: u64, rows: u32, width: u32, per_row: u32, blocks: u32 });

/// `weight` is (rows, d), and the indices are in one dimension: (places, d).
pub(crate) fn embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let (weight, indices) = (weight.contiguous()?, indices.contiguous()?);
    let ((rows, width), places, dtype) = (weight.dims2()?, indices.elem_count(), weight.dtype());
    let (shared, blocks) = (Rows::new(places, width), width.div_ceil(THREADS));
    let args = Table {
        places: places as u64,
        rows: size("embedding", "rows", rows)?,
        width: size("embedding", "columns", width)?,
        per_row: shared.per_row,
        blocks: blocks as u32,
    };
    let y = empty((places, width), dtype, weight.device())?;
    let inputs = [Some(&weight), Some(&indices)];
    let launch = Launch { name: "embedding", dtype, args, inputs: &inputs, outputs: &[Some(&y)] };
    // SAFETY: y, which is new, has a row for each index, and an index that is not below `rows` is not followed.
    unsafe { launch.run(shared.blocks)? };
    differentiable("embedding", &[&weight, &indices], y, move |x, _, dy| {
        let dw = empty_like(&x[0])?;
        let inputs = [Some(&x[1]), Some(dy)];
        let launch = Launch { name: "embedding_backward", dtype, args, inputs: &inputs, outputs: &[Some(&dw)] };
        // SAFETY: dy has a row for each index, and dw, which is new, has the weight's shape.
        unsafe { launch.run(rows * blocks)? };
        Ok(vec![Some(dw), None])
    })
}
