//! The number types that the ops compute in on the CPU.

use candle_core::WithDType;

/// Runs `$body` with the type `$float` that `$dtype` stands for.
macro_rules! with_float {
    ($op:expr, $dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $float = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $float = f64;
                $body
            }
            dtype => $crate::shape::error::fail!("{}: the dtype is {dtype:?} and must be F32 or F64", $op),
        }
    };
}
pub(crate) use with_float;

/// A number type that the ops compute in.
pub(crate) trait Float: WithDType {
    fn wide(self) -> f64;
    fn narrow(wide: f64) -> Self;
    /// `self` where it is positive or NaN, else zero.
    fn rectified(self) -> Self;
    /// e^x: of f32 one that vectorises ([`exp`]).
    fn exponential(self) -> Self;
}

macro_rules! float {
    ($float:ident, $exponential:path) => {
        impl Float for $float {
            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn narrow(wide: f64) -> Self {
                wide as $float
            }
            #[inline(always)]
            fn rectified(self) -> Self {
                if self < 0.0 { 0.0 } else { self }
            }
            #[inline(always)]
            fn exponential(self) -> Self {
                $exponential(self)
            }
        }
    };
}
float!(f32, exp);
float!(f64, f64::exp);

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
}
