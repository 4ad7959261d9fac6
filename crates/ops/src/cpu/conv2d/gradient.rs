//! The gradients of a convolution, section by section: what the methods share.

use crate::{cpu::number::Float, shape::conv2d::Geometry};
use rayon::prelude::*;
use std::{mem::MaybeUninit, ops::Range};

/// The gradient by the output.
pub(crate) enum OutputGradient<'a, T> {
    /// The gradient of all sections.
    Given(&'a [T]),
    /// The gradient of each section is made when it is needed, by this function of its number. So the gradient of what follows a
    /// convolution (a norm, say) need not go to memory and back.
    Made(&'a (dyn Fn(usize, &mut [T]) + Sync)),
}

impl<T: Float> OutputGradient<'_, T> {
    /// Room for [`Self::section`].
    pub fn buffer(&self, g: &Geometry) -> Vec<T> {
        match self {
            Self::Given(_) => Vec::new(),
            Self::Made(_) => vec![T::zero(); g.out_size()],
        }
    }

    pub fn section<'b>(&'b self, g: &Geometry, section: usize, buffer: &'b mut [T]) -> &'b [T] {
        match self {
            Self::Given(dy) => &dy[section * g.out_size()..][..g.out_size()],
            Self::Made(make) => {
                make(section, buffer);
                buffer
            }
        }
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub input: bool,
    pub weight: bool,
}

/// The gradients that were wanted.
pub(crate) struct Gradients<T> {
    pub input: Option<Vec<T>>,
    pub weight: Option<Vec<T>>,
}

/// Into how many parts the images are shared for the gradient by the weight. Each part is summed image by image and the
/// parts in order, so this number, and no number of threads, decides the bits.
const MAX_PARTS: usize = 16;

impl Geometry {
    /// Images of a part.
    pub(super) fn images_per_part(&self) -> usize {
        self.images.div_ceil(MAX_PARTS).max(1)
    }
}

/// Elements of the weight's gradient that a task adds up.
const SUMS_PER_TASK: usize = 4096;

/// Calls `f` in parallel with the images of each part, so many, and their gradient by the input (empty if that is not wanted). What it
/// returns, `sums` numbers of which the gradient by the weight is made, is added up in the order of the parts.
///
/// `f` writes all elements of the gradient by the input.
pub(super) fn gradients_by_parts<T: Float>(
    g: &Geometry,
    wanted: Wanted,
    per_part: usize,
    sums: usize,
    f: impl Fn(Range<usize>, &mut [MaybeUninit<T>]) -> Option<Vec<T>> + Sync,
) -> Gradients<T> {
    let mut dx = wanted.input.then(|| Box::new_uninit_slice(g.sections() * g.in_size()));
    let starts = (0..g.images).step_by(per_part);
    let mut parts: Vec<(Range<usize>, &mut [MaybeUninit<T>])> = match &mut dx {
        Some(dx) => {
            starts.zip(dx.chunks_mut(per_part * g.groups * g.in_size())).map(|(start, dx)| (start..0, dx)).collect()
        }
        None => starts.map(|start| (start..0, Default::default())).collect(),
    };
    parts.iter_mut().for_each(|(images, _)| images.end = g.images.min(images.start + per_part));
    let of_parts: Vec<Option<Vec<T>>> = parts.into_par_iter().map(|(images, dx)| f(images, dx)).collect();
    let mut of_parts = of_parts.into_iter().flatten();
    let weight = wanted.weight.then(|| {
        let mut weight = of_parts.next().unwrap_or_else(|| vec![T::zero(); sums]);
        let others: Vec<Vec<T>> = of_parts.collect();
        weight.par_chunks_mut(SUMS_PER_TASK).enumerate().for_each(|(chunk, weight)| {
            for part in &others {
                weight.iter_mut().zip(&part[chunk * SUMS_PER_TASK..]).for_each(|(sum, &part)| *sum += part);
            }
        });
        weight
    });
    // SAFETY: the parts are all images, and the methods write all of each.
    let input = dx.map(|dx| unsafe { dx.assume_init() }.into_vec());
    Gradients { input, weight }
}
