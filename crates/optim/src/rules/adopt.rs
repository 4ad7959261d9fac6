use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// ADOPT: Adam that normalises a gradient by the mean square of those before it, and so converges for any beta2 (Taniguchi
    /// et al. 2024, arXiv:2411.02853).
    ///
    /// The first update only fills the mean square: it moves and decays nothing. The others clip the normalised gradient, as the
    /// authors' code does.
    pub struct Adopt = "adopt" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the normalised gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean square of the gradient.
        beta2: 0.9999 in FRACTION,
        /// The least that a gradient is divided by.
        eps: 1e-6 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "t = 1: v = g^2; t > 1: n = g / max(sqrt(v), eps) clipped to +-(t - 1)^0.25; m = beta1 m + (1 - beta1) n; theta -= lr (m + wd theta); then v = beta2 v + (1 - beta2) g^2"
    best_for: "AdamW's tasks with a large beta2, and noise that makes Adam diverge"
    family: Adaptive
}

impl OneKernelRule for Adopt {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 5] {
        let (beta2, bound) = if at.starts { (0.0, 0.0) } else { (self.beta2, (at.t as f64 - 1.0).powf(0.25)) };
        [1.0 - self.beta1, beta2, 1.0 - beta2, self.eps, bound]
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        if at.starts { 0.0 } else { self.lr }
    }
}

impl Elementwise for Adopt {
    const NAME: &'static str = "adopt";
    const SCALARS: &'static [&'static str] = &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "bound"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 5];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, bound]: [R; 5],
        grad: R,
        _param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let normal = grad / v.sqrt().max(eps);
        let m = m.lerp(normal.max(-bound).min(bound), one_minus_beta1);
        (m, [m, beta2 * v + one_minus_beta2 * (grad * grad)])
    }
}
