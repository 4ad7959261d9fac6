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
                assert_eq!(*sum, 0.5 + expected, "{arch:?}: tile {tile}, channel {channel}, element {k} of {elements}");
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
