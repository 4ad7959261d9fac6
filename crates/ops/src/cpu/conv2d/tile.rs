//! The inner loops of the direct convolution: sums in registers, with the SIMD at hand.
//!
//! Both read `x` at `offset[k] + pixel[v]`, where `k` runs over the elements of a window and `v` over vectors of neighbouring
//! pixels, and make an explicit matrix of windows needless. See [`super::direct`] for who makes these tables.

use pulp::{Arch, Simd, WithSimd};
use std::mem::MaybeUninit;

/// The channels of a tile of [`Products`]: 6 where that fits, since 6 times [`PIXELS`] sums, 2 vectors and a weight leave one
/// of the 16 registers of AVX2 free. (With 4 times 3, all 16 used, the compiler keeps a sum in memory.)
const WIDE: usize = 6;
const NARROW: usize = 4;
/// The vectors of pixels of a tile of [`Products`].
const PIXELS: usize = 2;
/// The elements of a window that all channels of a tile take before the next ones, so that what they read of x stays in the
/// first-level cache: [`PIXELS`] vectors for each, and as much again for the parts of lines that are not read.
const SLICE: usize = 192;

/// Up to as many channels, as in a depthwise convolution, are blocks of one channel: a tile of [`NARROW`] would be half empty.
pub(super) const SINGLES: usize = 2;
/// The vectors of pixels of a tile of one channel: as many sums as additions are under way.
const SINGLE_PIXELS: usize = 8;

/// The elements of a tile of [`Correlations`]: a kernel of 3x3.
const SINGLE_ELEMENTS: usize = 9;

/// The sums of a tile of [`Outer`], elements times vectors of channels: with two vectors and a number of x they fit the 16 registers of
/// AVX2.
const SUMS: usize = 12;

/// How many channels each block of [`Products`] has; at least `channels` in all.
pub(super) fn blocks(channels: usize) -> Vec<usize> {
    if channels <= SINGLES {
        return vec![1; channels];
    }
    // Of all splits without a needless block the one with the fewest channels, and then the most wide blocks.
    let splits =
        (0..=channels.div_ceil(WIDE)).map(|wide| (wide, channels.saturating_sub(wide * WIDE).div_ceil(NARROW)));
    let best = splits.min_by_key(|&(wide, narrow)| (wide * WIDE + narrow * NARROW, narrow));
    let (wide, narrow) = best.unwrap_or_default();
    [vec![WIDE; wide], vec![NARROW; narrow]].concat()
}

/// The instructions for rows of `columns` pixels: the widest of the processor whose vectors are not half empty.
pub(super) fn instructions(columns: usize) -> Arch {
    let best = Arch::new();
    #[cfg(target_arch = "x86_64")]
    if (1..=8).contains(&(columns % 16)) && matches!(best, Arch::V4(_)) {
        return pulp::x86::V3::try_new().map_or(best, Arch::V3);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = columns;
    best
}

/// Numbers in a vector.
pub(super) fn lanes(arch: Arch) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    arch.dispatch(Lanes)
}

/// `out[c][v] = sum over k of weight[c][k] x[offset[k] + pixel[v] ..]`, for vectors of pixels.
pub(super) struct Products<'a> {
    pub x: &'a [f32],
    /// Per k.
    pub offsets: &'a [usize],
    /// Per v.
    pub pixels: &'a [usize],
    /// The channels of each block.
    pub blocks: &'a [usize],
    /// `[block][k][channel of the block]`
    pub weight: &'a [f32],
    /// `[channels][v]`, each a vector. All are written.
    pub out: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, offsets, pixels, blocks, weight, out } = self;
        assert!(reach(offsets, pixels) + S::F32_LANES <= x.len());
        let (row, channels) = (pixels.len() * S::F32_LANES, blocks.iter().sum::<usize>());
        assert_eq!((weight.len(), out.len()), (channels * offsets.len(), channels * row));
        if blocks.contains(&1) {
            assert!(blocks.iter().all(|&block| block == 1));
            for (weight, out) in weight.chunks_exact(offsets.len()).zip(out.chunks_exact_mut(row)) {
                // SAFETY: every offset + pixel + vector lies in x, and the channel has a vector of out for each pixel, and a
                // weight for each offset; all asserted above.
                unsafe { single_products(simd, x, offsets, pixels, weight, out) };
            }
            return;
        }
        for (tile, pixels) in pixels.chunks(PIXELS).enumerate() {
            for (slice, offsets_of_slice) in offsets.chunks(SLICE).enumerate() {
                let (mut weight, mut out) = (weight, &mut out[tile * PIXELS * S::F32_LANES..]);
                let begins = slice == 0;
                for &block in blocks {
                    let weights = &weight[slice * SLICE * block..];
                    // SAFETY: every offset + pixel + vector lies in x; of weight and out, cut below by what earlier blocks took,
                    // there is enough for this block; all asserted above. The first slice has written out for the others.
                    unsafe {
                        let offsets = offsets_of_slice;
                        match (block, pixels) {
                            (WIDE, &[a, b]) => {
                                products::<S, WIDE, 2>(simd, x, offsets, [a, b], weights, out, row, begins);
                            }
                            (WIDE, &[a]) => products::<S, WIDE, 1>(simd, x, offsets, [a], weights, out, row, begins),
                            (NARROW, &[a, b]) => {
                                products::<S, NARROW, 2>(simd, x, offsets, [a, b], weights, out, row, begins);
                            }
                            (NARROW, &[a]) => {
                                products::<S, NARROW, 1>(simd, x, offsets, [a], weights, out, row, begins)
                            }
                            _ => unreachable!(
                                "a block has {WIDE} or {NARROW} channels, and a tile 1 or {PIXELS} vectors"
                            ),
                        }
                    }
                    weight = &weight[block * offsets.len()..];
                    out = std::mem::take(&mut out).get_mut(block * row..).unwrap_or_default();
                }
            }
        }
    }
}

/// One channel of [`Products`].
///
/// # Safety
/// `x` holds a vector at each sum of an offset and a pixel; `weight` is as long as `offsets`; `out` holds a vector for each pixel.
#[inline(always)]
unsafe fn single_products<S: Simd>(
    simd: S,
    x: &[f32],
    offsets: &[usize],
    pixels: &[usize],
    weight: &[f32],
    out: &mut [MaybeUninit<f32>],
) {
    let (tiles, rest) = pixels.as_chunks::<SINGLE_PIXELS>();
    let (pairs, last) = rest.as_chunks::<2>();
    let (tiles_out, out) = out.split_at_mut(tiles.len() * SINGLE_PIXELS * S::F32_LANES);
    let (pairs_out, last_out) = out.split_at_mut(pairs.len() * 2 * S::F32_LANES);
    // SAFETY: as the caller promises; the parts of out are as long as those of pixels.
    unsafe {
        for (&tile, out) in tiles.iter().zip(tiles_out.chunks_exact_mut(SINGLE_PIXELS * S::F32_LANES)) {
            products::<S, 1, SINGLE_PIXELS>(simd, x, offsets, tile, weight, out, 0, true);
        }
        for (&pair, out) in pairs.iter().zip(pairs_out.chunks_exact_mut(2 * S::F32_LANES)) {
            products::<S, 1, 2>(simd, x, offsets, pair, weight, out, 0, true);
        }
        if let &[pixel] = last {
            products::<S, 1, 1>(simd, x, offsets, [pixel], weight, last_out, 0, true);
        }
    }
}

/// A tile of [`Products`].
///
/// # Safety
/// `x` holds a vector at each sum of an offset and a pixel; `weight` is at least `C` times as long as `offsets`; `out`
/// holds `V` vectors at each of `C` multiples of `row`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "registers, in fact")]
unsafe fn products<S: Simd, const C: usize, const V: usize>(
    simd: S,
    x: &[f32],
    offsets: &[usize],
    pixels: [usize; V],
    weight: &[f32],
    out: &mut [MaybeUninit<f32>],
    row: usize,
    begins: bool,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; C];
    let (x, mut weight, out) = (x.as_ptr(), weight.as_ptr(), out.as_mut_ptr());
    // SAFETY: as the caller promises.
    unsafe {
        if !begins {
            for (c, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<S>(out.add(c * row + v * S::F32_LANES).cast());
                }
            }
        }
        for &offset in offsets {
            let x = x.add(offset);
            let vectors = pixels.map(|pixel| load::<S>(x.add(pixel)));
            for (c, sums) in sums.iter_mut().enumerate() {
                let weight = simd.splat_f32s(*weight.add(c));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add_e_f32s(weight, vector, *sum);
                }
            }
            weight = weight.add(C);
        }
        // Not by the arrays' iterators, which would take them through memory.
        for (c, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                out.add(c * row + v * S::F32_LANES).cast::<S::f32s>().write_unaligned(*sum);
            }
        }
    }
}

/// `sums[c][k] += sum over v of y[c][v] . x[offset[k] + pixel[v] ..]`, for vectors of pixels.
pub(super) struct Correlations<'a> {
    pub x: &'a [f32],
    /// Per k.
    pub offsets: &'a [usize],
    /// Per v.
    pub pixels: &'a [usize],
    /// `[channels][v]`, each a vector.
    pub y: &'a [f32],
    /// `[channels][k]`
    pub sums: &'a mut [f32],
}

impl WithSimd for Correlations<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, offsets, pixels, y, sums } = self;
        assert!(reach(offsets, pixels) + S::F32_LANES <= x.len());
        if pixels.is_empty() || offsets.is_empty() {
            return;
        }
        let row = pixels.len() * S::F32_LANES;
        assert_eq!(y.len() / row, sums.len() / offsets.len());
        for (y, sums) in y.chunks_exact(row).zip(sums.chunks_exact_mut(offsets.len())) {
            let (tiles, rest) = offsets.as_chunks::<SINGLE_ELEMENTS>();
            let (first, last) = sums.split_at_mut(offsets.len() - rest.len());
            // SAFETY: every offset + pixel + vector lies in x, as asserted above, and y has a vector for each pixel.
            unsafe {
                for (&tile, sums) in tiles.iter().zip(first.chunks_exact_mut(SINGLE_ELEMENTS)) {
                    correlations::<S, SINGLE_ELEMENTS>(simd, x, tile, pixels, y, sums);
                }
                for (&offset, sum) in rest.iter().zip(last) {
                    correlations::<S, 1>(simd, x, [offset], pixels, y, std::slice::from_mut(sum));
                }
            }
        }
    }
}

/// A tile of [`Correlations`].
///
/// # Safety
/// `x` holds a vector at each sum of an offset and a pixel; `y` holds as many vectors as pixels.
#[inline(always)]
unsafe fn correlations<S: Simd, const K: usize>(
    simd: S,
    x: &[f32],
    offsets: [usize; K],
    pixels: &[usize],
    y: &[f32],
    out: &mut [f32],
) {
    let mut sums = [simd.splat_f32s(0.0); K];
    let (x, mut y) = (x.as_ptr(), y.as_ptr());
    // SAFETY: as the caller promises.
    unsafe {
        let x = offsets.map(|offset| x.add(offset));
        for &pixel in pixels {
            let gradient = load::<S>(y);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = simd.mul_add_e_f32s(gradient, load::<S>(x.add(pixel)), *sum);
            }
            y = y.add(S::F32_LANES);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out += simd.reduce_sum_f32s(sum);
    }
}

/// The vectors of channels of a tile of [`Outer`]: two, each of which takes a number of x, but one where the last would be empty.
pub(super) fn outer_vectors(channels: usize, lanes: usize) -> usize {
    if channels.div_ceil(lanes).is_multiple_of(2) { 2 } else { 1 }
}

/// `sums[tile][k] += sum over p of x[offset[k] + pixel[p]] y[tile][p]`, for tiles of one or two vectors of channels.
pub(super) struct Outer<'a> {
    /// Vectors of a tile.
    pub vectors: usize,
    pub x: &'a [f32],
    /// Per k.
    pub offsets: &'a [usize],
    /// Per p.
    pub pixels: &'a [usize],
    /// `[tile][p]`
    pub y: &'a [f32],
    /// `[tile][k]`
    pub sums: &'a mut [f32],
}

/// Numbers of a tile of y whose pixels are summed at a time: they fit half the first-level cache.
const PIECE: usize = 4096;

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { vectors, x, offsets, pixels, y, sums } = self;
        if pixels.is_empty() || offsets.is_empty() {
            return;
        }
        assert!(reach(offsets, pixels) < x.len());
        let width = vectors * S::F32_LANES;
        let tiles = y.len() / (width * pixels.len());
        assert_eq!((y.len(), sums.len()), (tiles * width * pixels.len(), tiles * width * offsets.len()));
        // Parts of nearly one size, none larger than a tile: few sums would leave the processor waiting for each.
        let parts = offsets.len().div_ceil(SUMS / vectors);
        for (y, sums) in y.chunks_exact(width * pixels.len()).zip(sums.chunks_exact_mut(width * offsets.len())) {
            for (y, pixels) in y.chunks(PIECE / width * width).zip(pixels.chunks(PIECE / width)) {
                for part in 0..parts {
                    let (first, last) = (part * offsets.len() / parts, (part + 1) * offsets.len() / parts);
                    let sums = &mut sums[width * first..width * last];
                    // SAFETY: every offset + pixel lies in x; y has a tile for each pixel of the piece, and the sums one for each
                    // offset; all asserted above or cut to it.
                    unsafe { outer_of(simd, vectors, x, &offsets[first..last], pixels, y, sums) };
                }
            }
        }
    }
}

/// A tile of [`Outer`] of any size.
///
/// # Safety
/// As of [`outer`], with as many vectors.
#[inline(always)]
unsafe fn outer_of<S: Simd>(
    simd: S,
    vectors: usize,
    x: &[f32],
    offsets: &[usize],
    pixels: &[usize],
    y: &[f32],
    out: &mut [f32],
) {
    macro_rules! by_size {
        ($($vectors:literal: $($size:literal)*;)*) => {
            match (vectors, offsets.len()) {
                $($(($vectors, $size) => {
                    let offsets = std::array::from_fn(|k| offsets[k]);
                    // SAFETY: as the caller promises.
                    unsafe { outer::<S, $size, $vectors>(simd, x, offsets, pixels, y, out) }
                })*)*
                _ => unreachable!("a tile has 1 or 2 vectors, and 1 to {SUMS} sums"),
            }
        };
    }
    by_size! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12;
        2: 1 2 3 4 5 6;
    }
}

/// A tile of [`Outer`].
///
/// # Safety
/// `x` holds a number at each sum of an offset and a pixel; `y` holds `V` vectors for each pixel and `out` for each offset.
#[inline(always)]
unsafe fn outer<S: Simd, const K: usize, const V: usize>(
    simd: S,
    x: &[f32],
    offsets: [usize; K],
    pixels: &[usize],
    y: &[f32],
    out: &mut [f32],
) {
    let (x, mut y, out) = (x.as_ptr(), y.as_ptr(), out.as_mut_ptr());
    let place = |k: usize, v: usize| (k * V + v) * S::F32_LANES;
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums: [[S::f32s; V]; K] =
            std::array::from_fn(|k| std::array::from_fn(|v| load::<S>(out.add(place(k, v)))));
        let x = offsets.map(|offset| x.add(offset));
        for &pixel in pixels {
            let vectors: [S::f32s; V] = std::array::from_fn(|v| load::<S>(y.add(v * S::F32_LANES)));
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = simd.splat_f32s(*x.add(pixel));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add_e_f32s(x, vector, *sum);
                }
            }
            y = y.add(V * S::F32_LANES);
        }
        for (k, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                out.add(place(k, v)).cast::<S::f32s>().write_unaligned(*sum);
            }
        }
    }
}

/// # Safety
/// A vector can be read at `from`.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: as the caller promises; it need not be aligned.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// The largest sum of an offset and a pixel.
fn reach(offsets: &[usize], pixels: &[usize]) -> usize {
    let largest = |values: &[usize]| values.iter().max().copied().unwrap_or(0);
    largest(offsets) + largest(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, so that sums are exact in any order.
    fn integers(len: usize, factor: usize) -> Vec<f32> {
        (0..len).map(|i| (i * factor % 11) as f32 - 5.0).collect()
    }

    #[test]
    fn tiles_are_sums_of_products_with_any_instructions() {
        for arch in [Arch::Scalar, instructions(8), instructions(16)] {
            let lanes = lanes(arch);
            let (offsets, pixels) = ([0, 3, 17, 40, 5, 61, 7, 1, 2, 22, 35], [0, 20, 9, 31, 50, 4, 8, 1, 12, 41, 27]);
            let x = integers(61 + 50 + lanes, 7);
            let at = |k: usize, v: usize, lane: usize| x[offsets[k] + pixels[v] + lane];

            for (channels, blocks) in [(10, vec![6, 4]), (2, vec![1, 1])] {
                assert_eq!(super::blocks(channels), blocks);
                let weight = integers(channels * offsets.len(), 5);
                let mut out = vec![MaybeUninit::new(f32::NAN); channels * pixels.len() * lanes];
                arch.dispatch(Products {
                    x: &x,
                    offsets: &offsets,
                    pixels: &pixels,
                    blocks: &blocks,
                    weight: &weight,
                    out: &mut out,
                });
                for (i, out) in out.iter().enumerate() {
                    let (channel, v, lane) = (i / (pixels.len() * lanes), i / lanes % pixels.len(), i % lanes);
                    let block = if channel < blocks[0] { 0 } else { 1 };
                    let (first, size) = (block * blocks[0], blocks[block]);
                    let weight = |k: usize| weight[first * offsets.len() + k * size + channel - first];
                    let expected: f32 = (0..offsets.len()).map(|k| weight(k) * at(k, v, lane)).sum();
                    // SAFETY: it was written when it was made.
                    let out = unsafe { out.assume_init() };
                    assert_eq!(out, expected, "{arch:?}: {channels} channels, {channel}, vector {v}, lane {lane}");
                }
            }

            for channels in [1, 2] {
                let y = integers(channels * pixels.len() * lanes, 3);
                let mut sums = vec![0.5; channels * offsets.len()];
                arch.dispatch(Correlations { x: &x, offsets: &offsets, pixels: &pixels, y: &y, sums: &mut sums });
                for (i, sum) in sums.iter().enumerate() {
                    let (channel, k) = (i / offsets.len(), i % offsets.len());
                    let pixel = |v: usize, lane: usize| y[(channel * pixels.len() + v) * lanes + lane] * at(k, v, lane);
                    let expected: f32 = (0..pixels.len() * lanes).map(|p| pixel(p / lanes, p % lanes)).sum();
                    assert_eq!(*sum, 0.5 + expected, "{arch:?}: {channels} channels, {channel}, element {k}");
                }
            }

            for (vectors, elements) in (1..=2).flat_map(|v| (1..=offsets.len()).map(move |k| (v, k))) {
                let width = vectors * lanes;
                let (offsets, y) = (&offsets[..elements], integers(2 * pixels.len() * width, 3));
                let mut sums = vec![0.5; 2 * elements * width];
                arch.dispatch(Outer { vectors, x: &x, offsets, pixels: &pixels, y: &y, sums: &mut sums });
                for (i, sum) in sums.iter().enumerate() {
                    let (tile, k, channel) = (i / (elements * width), i / width % elements, i % width);
                    let pixel = |p: usize| y[(tile * pixels.len() + p) * width + channel] * at(k, p, 0);
                    let expected: f32 = (0..pixels.len()).map(pixel).sum();
                    assert_eq!(
                        *sum,
                        0.5 + expected,
                        "{arch:?}: tile {tile}, channel {channel}, element {k} of {elements}"
                    );
                }
            }
        }
    }

    #[test]
    fn blocks_hold_all_channels_and_few_others() {
        for (channels, expected) in [
            (1, vec![1]),
            (2, vec![1, 1]),
            (3, vec![4]),
            (5, vec![6]),
            (8, vec![4, 4]),
            (10, vec![6, 4]),
            (16, vec![6, 6, 4]),
            (20, vec![6, 6, 4, 4]),
        ] {
            assert_eq!(blocks(channels), expected, "{channels} channels");
        }
    }
}
