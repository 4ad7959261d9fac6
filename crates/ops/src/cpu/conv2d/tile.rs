//! The inner loops of the direct convolution: sums in registers, with the SIMD at hand.
//!
//! Both read `x` at `offset[k] + pixel[v]`, where `k` runs over the elements of a window and `v` over vectors of neighbouring
//! pixels, and make an explicit matrix of windows needless. See [`super::direct`] for who makes these tables.

use pulp::{Arch, Simd, WithSimd};
use std::mem::MaybeUninit;

/// The channels of a tile of [`Products`]: 6 where that fits, since 6 times [`TILE_VECTORS`] sums, 2 vectors and a weight leave one
/// of the 16 registers of AVX2 free. (With 4 times 3, all 16 used, the compiler keeps a sum in memory.)
const WIDE_CHANNELS: usize = 6;
const NARROW_CHANNELS: usize = 4;
/// The vectors of pixels of a tile of [`Products`].
const TILE_VECTORS: usize = 2;
/// The elements of a window that all channels of a tile take before the next ones, so that what they read of x stays in the
/// first-level cache: [`TILE_VECTORS`] vectors for each, and as much again for the parts of lines that are not read.
const ELEMENTS_PER_SLICE: usize = 192;

/// Up to as many channels, as in a depthwise convolution, are blocks of one channel: a tile of [`NARROW_CHANNELS`] would be half empty.
pub(super) const MAX_SINGLE_CHANNELS: usize = 2;
/// The vectors of pixels of a tile of one channel: as many sums as additions are under way.
const SINGLE_TILE_VECTORS: usize = 8;

/// The elements of a tile of [`Correlations`]: a kernel of 3x3.
const SINGLE_TILE_ELEMENTS: usize = 9;

/// The sums of a tile of [`Outer`], elements times vectors of channels: with two vectors and a number of x they fit the 16 registers of
/// AVX2.
const SUMS_PER_TILE: usize = 12;

/// How many channels each block of [`Products`] has; at least `channels` in all.
pub(super) fn blocks(channels: usize) -> Vec<usize> {
    if channels <= MAX_SINGLE_CHANNELS {
        return vec![1; channels];
    }
    // Of all splits without a needless block the one with the fewest channels, and then the most wide blocks.
    let splits = (0..=channels.div_ceil(WIDE_CHANNELS))
        .map(|wide| (wide, channels.saturating_sub(wide * WIDE_CHANNELS).div_ceil(NARROW_CHANNELS)));
    let best = splits.min_by_key(|&(wide, narrow)| (wide * WIDE_CHANNELS + narrow * NARROW_CHANNELS, narrow));
    let (wide, narrow) = best.unwrap_or_default();
    [vec![WIDE_CHANNELS; wide], vec![NARROW_CHANNELS; narrow]].concat()
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
    /// One for each k.
    pub offsets: &'a [usize],
    /// One for each v.
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
        for (tile, pixels) in pixels.chunks(TILE_VECTORS).enumerate() {
            for (slice, offsets_of_slice) in offsets.chunks(ELEMENTS_PER_SLICE).enumerate() {
                let (mut weight, mut out) = (weight, &mut out[tile * TILE_VECTORS * S::F32_LANES..]);
                let begins = slice == 0;
                for &block in blocks {
                    let weights = &weight[slice * ELEMENTS_PER_SLICE * block..];
                    // SAFETY: every offset + pixel + vector lies in x; of weight and out, cut below by what earlier blocks took,
                    // there is enough for this block; all asserted above. The first slice has written out for the others.
                    unsafe {
                        let offsets = offsets_of_slice;
                        match (block, pixels) {
                            (WIDE_CHANNELS, &[a, b]) => {
                                products::<S, WIDE_CHANNELS, 2>(simd, x, offsets, [a, b], weights, out, row, begins);
                            }
                            (WIDE_CHANNELS, &[a]) => {
                                products::<S, WIDE_CHANNELS, 1>(simd, x, offsets, [a], weights, out, row, begins)
                            }
                            (NARROW_CHANNELS, &[a, b]) => {
                                products::<S, NARROW_CHANNELS, 2>(simd, x, offsets, [a, b], weights, out, row, begins);
                            }
                            (NARROW_CHANNELS, &[a]) => {
                                products::<S, NARROW_CHANNELS, 1>(simd, x, offsets, [a], weights, out, row, begins)
                            }
                            _ => unreachable!(
                                "a block has {WIDE_CHANNELS} or {NARROW_CHANNELS} channels, and a tile 1 or {TILE_VECTORS} vectors"
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
    let (tiles, rest) = pixels.as_chunks::<SINGLE_TILE_VECTORS>();
    let (pairs, last) = rest.as_chunks::<2>();
    let (tiles_out, out) = out.split_at_mut(tiles.len() * SINGLE_TILE_VECTORS * S::F32_LANES);
    let (pairs_out, last_out) = out.split_at_mut(pairs.len() * 2 * S::F32_LANES);
    // SAFETY: as the caller promises; the parts of out are as long as those of pixels.
    unsafe {
        for (&tile, out) in tiles.iter().zip(tiles_out.chunks_exact_mut(SINGLE_TILE_VECTORS * S::F32_LANES)) {
            products::<S, 1, SINGLE_TILE_VECTORS>(simd, x, offsets, tile, weight, out, 0, true);
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
    /// One for each k.
    pub offsets: &'a [usize],
    /// One for each v.
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
            let (tiles, rest) = offsets.as_chunks::<SINGLE_TILE_ELEMENTS>();
            let (first, last) = sums.split_at_mut(offsets.len() - rest.len());
            // SAFETY: every offset + pixel + vector lies in x, as asserted above, and y has a vector for each pixel.
            unsafe {
                for (&tile, sums) in tiles.iter().zip(first.chunks_exact_mut(SINGLE_TILE_ELEMENTS)) {
                    correlations::<S, SINGLE_TILE_ELEMENTS>(simd, x, tile, pixels, y, sums);
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
    /// One for each k.
    pub offsets: &'a [usize],
    /// One for each p.
    pub pixels: &'a [usize],
    /// `[tile][p]`
    pub y: &'a [f32],
    /// `[tile][k]`
    pub sums: &'a mut [f32],
}

/// Numbers of a tile of y whose pixels are summed at a time: they fit half the first-level cache.
const NUMBERS_PER_PIECE: usize = 4096;

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
        let parts = offsets.len().div_ceil(SUMS_PER_TILE / vectors);
        for (y, sums) in y.chunks_exact(width * pixels.len()).zip(sums.chunks_exact_mut(width * offsets.len())) {
            for (y, pixels) in y.chunks(NUMBERS_PER_PIECE / width * width).zip(pixels.chunks(NUMBERS_PER_PIECE / width))
            {
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
                _ => unreachable!("a tile has 1 or 2 vectors, and 1 to {SUMS_PER_TILE} sums"),
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
mod tests;
