use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).
    ///
    /// The decay is multiplied by the learning rate, as in PyTorch and optax; the paper's decay is `lr weight_decay`.
    pub struct AdamW = "adamw" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 1e-2 in NON_NEGATIVE around 3e-2,
    }
    formula: "m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps); theta -= lr (u + wd theta)"
    best_for: "transformers, and a first try anywhere"
    family: Adaptive
}

impl OneKernelRule for AdamW {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 6] {
        let (c1, c2) = (1.0 - self.beta1.powf(at.t as f64), 1.0 - self.beta2.powf(at.t as f64));
        [1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps, 1.0 / c1, 1.0 / c2]
    }
}

impl Elementwise for AdamW {
    const NAME: &'static str = "adamw";
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, v_scale]: [R; 6],
        grad: R,
        _param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let m = m.lerp(grad, one_minus_beta1);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        (m * m_scale / ((v * v_scale).sqrt() + eps), [m, v])
    }
}
