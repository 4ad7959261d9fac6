//! Loops over slices that vectorise, with sums whose order depends on no processor.

use crate::cpu::tensor::Float;

/// Independent sums that are added up in order: as many as the widest vector has lanes.
pub(crate) const LANES: usize = 16;

/// The sum of `term(x, y)` over two slices of one length.
#[inline(always)]
pub(crate) fn sum2<T: Float>(x: &[T], y: &[T], term: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::zero(); LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    for (sum, (&x, &y)) in sums.iter_mut().zip(rest) {
        *sum += term(x, y);
    }
    sums.into_iter().fold(T::zero(), |sum, lane| sum + lane)
}

/// The sum of `term(x)` over a slice.
#[inline(always)]
pub(crate) fn sum<T: Float>(x: &[T], term: impl Fn(T) -> T) -> T {
    sum2(x, x, |x, _| term(x))
}

/// The largest value of a slice; what is not a number is left out.
#[inline(always)]
pub(crate) fn max<T: Float>(x: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let lowest = T::narrow(f64::NEG_INFINITY);
    let mut lanes = [lowest; LANES];
    let xs = x.chunks_exact(LANES);
    let rest = xs.remainder();
    for x in xs {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(lowest, larger)
}

/// e^x with a relative error below 2e-7, in operations that vectorise. Below -87 it is e^-87, above 88 e^88.
///
/// `x = n ln 2 + r`; a polynomial for e^r (the one of Cephes' `expf`) and the power of two from its bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the last bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, of which the first has few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // `clamp` keeps what is not a number.
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let polynomial =
        ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1) * r
            + 0.5;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (polynomial * (r * r) + r + 1.0) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_and_keeps_what_is_not_a_number() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-1000.0)), (1.0, exp(-87.0), exp(-87.0)));
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn sums_and_the_maximum_take_every_value() {
        for at in 0..40 {
            let mut x = [-3f32; 40];
            x[at] = -1.0;
            x[(at + 1) % 40] = f32::NAN;
            assert_eq!(max(&x), -1.0);
        }
        for n in [0, 1, 15, 16, 17, 40] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum(&x, |x| 2.0 * x), (n * (n + 1)) as f32);
            assert_eq!(sum2(&x, &x, |x, y| x * y), (n * (n + 1) * (2 * n + 1) / 6) as f32);
        }
    }
}
