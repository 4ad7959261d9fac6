//! Loops over slices that vectorise, with sums whose order depends on no processor.

use crate::cpu::number::Float;

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

#[cfg(test)]
mod tests {
    use super::*;

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
