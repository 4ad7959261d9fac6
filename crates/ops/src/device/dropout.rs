//! Dropout with masks of a seeded generator.

use super::{
    launch::{Launch, THREADS, args},
    run::empty_like,
};
use crate::shape::dropout::DropoutMasks;
use candle_core::{Result, Tensor};

args!("dropout", Drop { len: u64, scale: f64, key: [u32; 8], dropped: u32, unused: u32 });

/// Random numbers of a block of the generator.
const WORDS_PER_BLOCK: usize = 16;

/// The value of [`crate::dropout()`]; of the gradient by it, the gradient.
pub(crate) fn dropout(x: &Tensor, masks: &DropoutMasks) -> Result<Tensor> {
    let args = Drop {
        len: x.elem_count() as u64,
        scale: masks.scale(),
        key: masks.key(),
        dropped: masks.dropped(),
        unused: 0,
    };
    let y = empty_like(x)?;
    let launch = Launch { name: "dropout", dtype: x.dtype(), args, inputs: &[Some(x)], outputs: &[Some(&y)] };
    // SAFETY: x and y have `len` elements, and y is new.
    unsafe { launch.run(x.elem_count().div_ceil(THREADS * WORDS_PER_BLOCK))? };
    Ok(y)
}
