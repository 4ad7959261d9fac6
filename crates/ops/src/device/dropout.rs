//! Dropout with masks of a seeded generator.

use super::launch::{Launch, THREADS, args, empty_like};
use crate::{
    cpu::dropout::Masks,
    graph::{differentiable, plain},
};
use candle_core::{Result, Tensor};

args!("dropout", Drop { len: u64, scale: f64, key: [u32; 8], dropped: u32, unused: u32 });

/// Random numbers of a block of the generator.
const WORDS: usize = 16;

pub(crate) fn dropout(x: &Tensor, masks: &Masks) -> Result<Tensor> {
    let [input] = plain([x])?;
    let args = Drop {
        len: x.elem_count() as u64,
        scale: masks.scale(),
        key: masks.key(),
        dropped: masks.dropped(),
        unused: 0,
    };
    let apply = move |x: &Tensor| -> Result<Tensor> {
        let y = empty_like(x)?;
        let launch = Launch { name: "dropout", dtype: x.dtype(), args, inputs: &[Some(x)], outputs: &[Some(&y)] };
        // SAFETY: x and y have `len` elements, and y is new.
        unsafe { launch.run(x.elem_count().div_ceil(THREADS * WORDS))? };
        Ok(y)
    };
    let y = apply(&input)?;
    differentiable("dropout", &[x], y, move |dy| Ok(vec![Some(apply(dy)?)]))
}
