use super::adamw::AdamW;
use crate::formula::{elementwise::Elementwise, real::Real, trust_ratio::TrustRatio};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters};

hyperparameters! {
    /// LAMB: AdamW's direction, rescaled per tensor to the norm of the parameter (You et al. 2020, arXiv:1904.00962).
    ///
    /// apex and timm also clip the global gradient norm to 1 first: [`set_clip(Some(Clip::GlobalNorm(1.0)))`](crate::FusedOptimizer::set_clip).
    pub struct Lamb = "lamb" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-6 in NON_NEGATIVE,
        /// Decoupled weight decay, part of what is rescaled.
        weight_decay: 1e-2 in NON_NEGATIVE,
        /// Correct the two means for their start at 0.
        bias_correction: true,
        /// Never scale a step up: r is at most 1.
        trust_clip: false,
        /// Rescale also where the weight decay is 0; otherwise r is 1 there.
        always_adapt: true,
    }
    formula: "m, v and u as AdamW's; w = u + wd theta; r = norm(theta) / norm(w) per tensor, 1 if either is 0; theta -= lr r w"
    best_for: "very large batches"
}

impl OneKernelRule for Lamb {
    fn scalars(&self, t: u64) -> [f64; 6] {
        let adamw = AdamW { lr: self.lr, beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: 0.0 };
        // A mean that has run for ever needs no correction.
        adamw.scalars(if self.bias_correction { t } else { u64::MAX })
    }
    fn trust_ratio(&self) -> Option<TrustRatio> {
        (self.always_adapt || self.weight_decay != 0.0).then_some(TrustRatio { at_most_one: self.trust_clip })
    }
}

/// AdamW's direction; the trust ratio is applied to whole tensors.
impl Elementwise for Lamb {
    const NAME: &'static str = "lamb";
    const SCALARS: &'static [&'static str] = AdamW::SCALARS;
    const SLOTS: &'static [&'static str] = AdamW::SLOTS;
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 6], grad: R, param: R, state: [R; 2]) -> (R, [R; 2]) {
        AdamW::direction(scalars, grad, param, state)
    }
}
