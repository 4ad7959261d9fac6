use super::adamw::AdamW;
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// AdaBelief: the gradient's mean over the root of its mean square distance from that mean (Zhuang et al. 2020,
    /// arXiv:2010.07468).
    ///
    /// `eps` is added to the mean square in every update and is kept there, and to its root, as in the authors' code and in
    /// optax. Without the authors' option of rectification.
    pub struct AdaBelief = "adabelief" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean square distance.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-16 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "m = beta1 m + (1 - beta1) g; s = beta2 s + (1 - beta2) (g - m)^2 + eps; u = (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + eps); theta -= lr (u + wd theta)"
    best_for: "convolutional and adversarial networks, where Adam generalises worse than SGD"
    family: Adaptive
}

impl OneKernelRule for AdaBelief {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 6] {
        let Self { lr, beta1, beta2, eps, .. } = *self;
        AdamW { lr, beta1, beta2, eps, weight_decay: 0.0 }.scalars(at)
    }
    /// `s` never falls below `eps`: over its root, a mean of 1e-38 is a step of 1e-23 at most.
    fn smallest_state(&self) -> f64 {
        if self.eps < 1e-30 { 0.0 } else { 1e-38 }
    }
}

impl Elementwise for AdaBelief {
    const NAME: &'static str = "adabelief";
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "s_scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_var"];
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, s_scale]: [R; 6],
        grad: R,
        _param: R,
        [m, s]: [R; 2],
    ) -> (R, [R; 2]) {
        let m = m.lerp(grad, one_minus_beta1);
        let distance = grad - m;
        let s = beta2 * s + one_minus_beta2 * (distance * distance) + eps;
        (m * m_scale / ((s * s_scale).sqrt() + eps), [m, s])
    }
}
