use super::adamw::AdamW;
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// AdEMAMix: AdamW with a second, slow mean of the gradient (Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137).
    ///
    /// The slow mean starts at 0 and is not corrected. In the first `warmup` updates `alpha` rises in a line from 0, and `beta3`
    /// from `beta1` by a half-life that rises in a line; the authors make them as long as the run. Short runs want a smaller
    /// `beta3`.
    pub struct AdEmaMix = "ademamix" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the fast mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Decay rate of the slow mean of the gradient.
        beta3: 0.9999 in FRACTION,
        /// Weight of the slow mean beside the fast one.
        alpha: 5.0 in NON_NEGATIVE,
        /// Updates until `alpha` and `beta3` have their values; 0 for from the first.
        warmup: 0.0 in NON_NEGATIVE,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "m and v as AdamW's; n = beta3 n + (1 - beta3) g; u = (m / (1 - beta1^t) + alpha n) / (sqrt(v / (1 - beta2^t)) + eps); theta -= lr (u + wd theta)"
    best_for: "long runs of large models, where old gradients still tell"
    family: Adaptive
}

impl AdEmaMix {
    /// `alpha` and `beta3` in update `t`: 1 / ln(beta), which is proportional to the half-life, rises in a line.
    fn warmed_up(&self, t: u64) -> (f64, f64) {
        let share = t as f64 / self.warmup;
        if share < 1.0 {
            let half_life = (1.0 - share) / self.beta1.ln() + share / self.beta3.ln();
            (self.alpha * share, (1.0 / half_life).exp())
        } else {
            (self.alpha, self.beta3)
        }
    }
}

impl OneKernelRule for AdEmaMix {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 8] {
        let Self { lr, beta1, beta2, eps, .. } = *self;
        let [a, beta2, b, eps, m_scale, v_scale] = AdamW { lr, beta1, beta2, eps, weight_decay: 0.0 }.scalars(at);
        let (alpha, beta3) = self.warmed_up(at.t);
        [a, beta2, b, eps, m_scale, v_scale, alpha, 1.0 - beta3]
    }
}

impl Elementwise for AdEmaMix {
    const NAME: &'static str = "ademamix";
    const SCALARS: &'static [&'static str] = &[
        "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale", "alpha", "one_minus_beta3",
    ];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_slow", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 8];
    type State<R: Real> = [R; 3];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, v_scale, alpha, one_minus_beta3]: [R; 8],
        grad: R,
        _param: R,
        [m, slow, v]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = m.lerp(grad, one_minus_beta1);
        let slow = slow.lerp(grad, one_minus_beta3);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        ((m * m_scale + alpha * slow) / ((v * v_scale).sqrt() + eps), [m, slow, v])
    }
}
