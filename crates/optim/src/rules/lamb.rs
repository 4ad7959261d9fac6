use super::adamw::AdamW;
use crate::formula::decay::Decay;
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// LAMB: AdamW's direction, rescaled per tensor to the norm of the parameter (You et al. 2020, arXiv:1904.00962).
    ///
    /// apex and timm also clip the global gradient norm to 1 first: [`set_clip(Some(Clip::GlobalNorm(1.0)))`](crate::FusedOptimizer::set_clip).
    pub struct Lamb = "lamb" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE around 1e-2,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-6 in NON_NEGATIVE,
        /// Decoupled weight decay, part of what is rescaled.
        weight_decay: 1e-2 in NON_NEGATIVE around 3e-2,
        /// Correct the two means for their start at 0.
        bias_correction: true,
        /// Never scale a step up: r is at most 1.
        trust_clip: false,
        /// Rescale also where the weight decay is 0; otherwise r is 1 there.
        always_adapt: true,
    }
    formula: "m, v and u as AdamW's; w = u + wd theta; r = norm(theta) / norm(w) per tensor, 1 if either is 0; theta -= lr r w"
    best_for: "very large batches"
    family: Adaptive
}

impl OneKernelRule for Lamb {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 10] {
        let (c1, c2) = if self.bias_correction {
            (1.0 - self.beta1.powf(at.t as f64), 1.0 - self.beta2.powf(at.t as f64))
        } else {
            (1.0, 1.0)
        };
        let adapts = if self.always_adapt || self.weight_decay != 0.0 { 1.0 } else { 0.0 };
        let most = if self.trust_clip { 1.0 } else { f64::INFINITY };
        let (a, b) = (1.0 - self.beta1, 1.0 - self.beta2);
        [a, self.beta2, b, self.eps, 1.0 / c1, 1.0 / c2, self.weight_decay, adapts, most, 1.0]
    }
}

impl Elementwise for Lamb {
    const NAME: &'static str = "lamb";
    const DECAY: Decay = Decay::Own;
    const SCALARS: &'static [&'static str] = &[
        "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale", "weight_decay", "adapts", "most", "ratio",
    ];
    const SLOTS: &'static [&'static str] = AdamW::SLOTS;
    const SUMS: Sums = Sums { scope: Scope::Tensor, of: &[Summand::Square, Summand::Square], factors: 1 };
    type Scalars<R: Real> = [R; 10];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 10], grad: R, param: R, state: [R; 2]) -> (R, [R; 2]) {
        let [a, beta2, b, eps, m_scale, v_scale, weight_decay, .., ratio] = scalars;
        let (u, state) = AdamW::direction([a, beta2, b, eps, m_scale, v_scale], grad, param, state);
        (ratio * (u + weight_decay * param), state)
    }

    /// The parameter, and the direction with decay.
    #[inline(always)]
    fn measured<R: Real>(scalars: [R; 10], grad: R, param: R, state: [R; 2]) -> [R; MAX_SUMS] {
        let [a, beta2, b, eps, m_scale, v_scale, weight_decay, ..] = scalars;
        let (u, _) = AdamW::direction([a, beta2, b, eps, m_scale, v_scale], grad, param, state);
        [param, u + weight_decay * param, R::constant(0.0)]
    }

    /// The trust ratio.
    fn factors<R: Real>(scalars: [R; 10], [param, direction, _]: [R; MAX_SUMS], _len: R) -> [R; MAX_FACTORS] {
        let [.., adapts, most, _] = scalars;
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        let ratio = (param.sqrt() / direction.sqrt()).min(most);
        // 1 where a norm is 0; NaN is not positive, and stays.
        let ratio = param.select_positive(direction.select_positive(ratio, one + zero * direction), one + zero * param);
        [adapts.select_positive(ratio, one), zero, zero, zero]
    }
}
