use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
use crate::formula::{decay::Decay, elementwise::{Elementwise, Gives}, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Prodigy: AdamW whose step size is an estimate of the distance to the solution, from sums over all parameters (Mishchenko and
    /// Defazio 2023, arXiv:2306.06101; prodigyopt 1.1). Leave `lr` at 1 but for a schedule. The sums stay on the device.
    ///
    /// `d` is one for all parameters of the rule, in all groups, which are to have the same `lr`. Bias corrections count each
    /// parameter's own updates, where prodigyopt counts steps.
    pub struct Prodigy = "prodigy" {
        /// Multiplies the step size that is found.
        lr: 1.0 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Decay rate of the sums behind the estimate; 0 is the root of beta2.
        beta3: 0.0 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
        /// The first estimate, above 0.
        d0: 1e-6 in POSITIVE,
        /// Multiplies the estimate.
        d_coef: 1.0 in NON_NEGATIVE,
        /// The most by which the estimate grows in a step; 0 for no limit.
        growth_rate: 0.0 in NON_NEGATIVE,
        /// Correct the means for their start at 0.
        use_bias_correction: false,
        /// Leave lr out of the estimate's denominator, for schedules that start low.
        safeguard_warmup: false,
    }
    formula: "a = lr d sqrt(1 - beta2^t) / (1 - beta1^t), or lr d without bias correction; n = beta3 n + (d / d0) a <g, p0 - theta>; m = beta1 m + d (1 - beta1) g; v = beta2 v + d^2 (1 - beta2) g^2; s = beta3 s + (d / d0) a g; h = d_coef n / norm1(s) over all; where d = d0, d = max(d, h); top = max(top, h); d = min(top, d growth_rate); theta -= a (m / (sqrt(v) + d eps) + wd theta), with a of the old d; p0 = theta at the start"
    best_for: "AdamW without a search for the learning rate"
    family: LearningRateFree
}

impl OneKernelRule for Prodigy {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 18] {
        let t = at.t as f64;
        let correction = if self.use_bias_correction {
            (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
        } else {
            1.0
        };
        let beta3 = if self.beta3 == 0.0 { self.beta2.sqrt() } else { self.beta3 };
        let growth = if self.growth_rate == 0.0 { f64::INFINITY } else { self.growth_rate };
        let safeguard = f64::from(u8::from(self.safeguard_warmup));
        [
            self.lr * correction,
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            beta3,
            self.eps,
            self.weight_decay,
            self.d0,
            self.d_coef,
            growth,
            safeguard,
            at.starts_flag(),
            1.0 / self.d0,
            self.d0,
            self.d0,
            self.d0,
            0.0,
        ]
    }
}

impl Elementwise for Prodigy {
    const NAME: &'static str = "prodigy";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &[
        "lr",
        "beta1",
        "one_minus_beta1",
        "beta2",
        "one_minus_beta2",
        "beta3",
        "eps",
        "weight_decay",
        "d0",
        "d_coef",
        "growth",
        "safeguard",
        "starts",
        "per_d0",
        "d_before",
        "d",
        "d_max",
        "numerator",
    ];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "s", "p0"];
    const SUMS: Sums = Sums { scope: Scope::All, of: &[Summand::Value, Summand::Value], factors: 4 };
    type Scalars<R: Real> = [R; 18];
    type State<R: Real> = [R; 4];

    /// The step size is that of the estimate before this update; eps is scaled by the present one.
    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 18], grad: R, param: R, [m, v, s, p0]: [R; 4]) -> (R, [R; 4]) {
        let [lr, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, eps, weight_decay, ..] = scalars;
        let [.., safeguard, starts, per_d0, before, d, _, _] = scalars;
        let p0 = starts.select_positive(param, p0);
        let step = lr * before;
        let m = beta1 * m + before * one_minus_beta1 * grad;
        let v = beta2 * v + before * before * one_minus_beta2 * (grad * grad);
        let s = beta3 * s + before * per_d0 * safeguard.select_positive(before, step) * grad;
        let decayed = param - step * weight_decay * param;
        (decayed - step * (m / (v.sqrt() + d * eps)), [m, v, s, p0])
    }

    /// What the estimate's numerator and denominator get: here `d` is still that of the update before.
    #[inline(always)]
    fn measured<R: Real>(scalars: [R; 18], grad: R, param: R, [_, _, s, p0]: [R; 4]) -> [R; MAX_SUMS] {
        let [lr, _, _, _, _, beta3, ..] = scalars;
        let [.., safeguard, starts, per_d0, _, d, _, _] = scalars;
        let p0 = starts.select_positive(param, p0);
        let step = lr * d;
        let s = beta3 * s + d * per_d0 * safeguard.select_positive(d, step) * grad;
        [d * per_d0 * step * (grad * (p0 - param)), s.abs(), R::constant(0.0)]
    }

    fn factors<R: Real>(scalars: [R; 18], [above, below, _]: [R; MAX_SUMS], _len: R) -> [R; MAX_FACTORS] {
        let [_, _, _, _, _, beta3, _, _, d0, d_coef, growth, ..] = scalars;
        let [.., d, d_max, numerator] = scalars;
        let numerator = beta3 * numerator + above;
        // Without any gradient so far nothing is known.
        let found = below.select_positive(d_coef * numerator / below, d);
        let now = (d - d0).select_positive(d, d.max(found));
        let d_max = d_max.max(found);
        [d, d_max.min(now * growth), d_max, numerator]
    }
}
