//! The number types of the loops, and the numbers of a step.

use crate::formula::real::Real;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The number type that a tensor is computed in: `f64` for `f64` parameters, `f32` for all others.
pub trait Compute: Real + Default + PartialOrd {
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn load_bf16(from: &[bf16], to: &mut [Self]);
    fn load_f16(from: &[f16], to: &mut [Self]);
    fn store_bf16(from: &[Self], to: &mut [bf16]);
    fn store_f16(from: &[Self], to: &mut [f16]);
}

macro_rules! compute {
    ($float:ident, $convert_from:ident, $convert_to:ident) => {
        impl Compute for $float {
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $float
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn load_bf16(from: &[bf16], to: &mut [Self]) {
                from.$convert_to(to);
            }
            fn load_f16(from: &[f16], to: &mut [Self]) {
                from.$convert_to(to);
            }
            fn store_bf16(from: &[Self], to: &mut [bf16]) {
                to.$convert_from(from);
            }
            fn store_f16(from: &[Self], to: &mut [f16]) {
                to.$convert_from(from);
            }
        }
    };
}
compute!(f32, convert_from_f32_slice, convert_to_f32_slice);
compute!(f64, convert_from_f64_slice, convert_to_f64_slice);

/// What an update does beside the rule, the same for all elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct StepNumbers<R> {
    pub lr: R,
    pub weight_decay: R,
    /// Multiplies the gradient: accumulation and clipping by norm.
    pub grad_scale: R,
    /// The largest absolute value of a gradient after scaling; infinite for none.
    pub clip_value: R,
    /// State below this absolute value becomes 0 where the gradient is 0, before the update; 0 for none.
    pub smallest_state: R,
    /// The direction counts only where it agrees with the gradient's sign, and is scaled up by `mask_scale`.
    pub cautious: bool,
    /// 1 over the share of elements where they agree; known after the first pass.
    pub mask_scale: R,
    /// Decoupled decay only where it agrees with the direction's sign.
    pub cautious_decay: bool,
}

impl<R> StepNumbers<R> {
    /// Whether an option changes how the parameter moves.
    pub fn has_options(&self) -> bool {
        self.cautious || self.cautious_decay
    }
}

impl StepNumbers<f64> {
    pub fn to<R: Compute>(self) -> StepNumbers<R> {
        StepNumbers {
            lr: R::from_f64(self.lr),
            weight_decay: R::from_f64(self.weight_decay),
            grad_scale: R::from_f64(self.grad_scale),
            clip_value: R::from_f64(self.clip_value),
            smallest_state: R::from_f64(self.smallest_state),
            cautious: self.cautious,
            mask_scale: R::from_f64(self.mask_scale),
            cautious_decay: self.cautious_decay,
        }
    }
}
