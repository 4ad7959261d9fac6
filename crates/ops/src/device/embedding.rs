//! Rows of a table by their indices.

use super::{
    launch::{Launch, RowThreads, THREADS, args, size},
    run::empty,
};
use crate::shape::{gradients::Backward, rows::shape_of_rows};
use candle_core::{Result, Tensor};

args!("embedding", Table { places: u64, rows: u32, width: u32, per_row: u32, blocks: u32 });

/// The value of [`crate::embedding()`] with one index at least, and its gradient.
pub(crate) fn embedding([weight, indices]: [Tensor; 2]) -> Result<(Tensor, impl Backward)> {
    let ((rows, width), places, dtype) = (weight.dims2()?, indices.elem_count(), weight.dtype());
    let (shared, blocks) = (RowThreads::new(places, width), width.div_ceil(THREADS));
    let args = Table {
        places: places as u64,
        rows: size("embedding", "rows", rows)?,
        width: size("embedding", "columns", width)?,
        per_row: shared.per_row,
        blocks: blocks as u32,
    };
    let y = empty(shape_of_rows(&indices, width), dtype, weight.device())?;
    let read = [Some(&weight), Some(&indices)];
    let launch = Launch { name: "embedding", dtype, args, inputs: &read, outputs: &[Some(&y)] };
    // SAFETY: y, which is new, has a row for each index, and an index that is not below `rows` is not followed.
    unsafe { launch.run(shared.blocks)? };
    let backward = move |dy: &Tensor| {
        let dw = empty((rows, width), dtype, dy.device())?;
        let inputs = [Some(&indices), Some(dy)];
        let launch = Launch { name: "embedding_backward", dtype, args, inputs: &inputs, outputs: &[Some(&dw)] };
        // SAFETY: dy has a row for each index, and dw, which is new, has the weight's shape.
        unsafe { launch.run(rows * blocks)? };
        Ok(vec![Some(dw), None])
    };
    Ok((y, backward))
}
