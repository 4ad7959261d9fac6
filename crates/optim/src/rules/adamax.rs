use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Adamax: Adam with the largest recent gradient in place of the root mean square (Kingma & Ba 2015, arXiv:1412.6980,
    /// section 7.1).
    ///
    /// `eps` is added to the absolute gradient within the maximum, as in PyTorch.
    pub struct Adamax = "adamax" {
        /// Learning rate.
        lr: 2e-3 in NON_NEGATIVE around 1e-3,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the largest absolute gradient.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; m = beta1 m + (1 - beta1) g; u = max(beta2 u, abs(g) + eps); theta -= lr m / ((1 - beta1^t) u)"
    best_for: "gradients with outliers, and embeddings"
    family: Adaptive
}

impl OneKernelRule for Adamax {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 4] {
        [1.0 - self.beta1, self.beta2, self.eps, 1.0 / (1.0 - self.beta1.powf(at.t as f64))]
    }
}

impl Elementwise for Adamax {
    const NAME: &'static str = "adamax";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = &["one_minus_beta1", "beta2", "eps", "m_scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_inf"];
    type Scalars<R: Real> = [R; 4];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, eps, m_scale]: [R; 4],
        grad: R,
        _param: R,
        [m, largest]: [R; 2],
    ) -> (R, [R; 2]) {
        let m = m.lerp(grad, one_minus_beta1);
        let largest = (beta2 * largest).max(grad.abs() + eps);
        (m * m_scale / largest, [m, largest])
    }
}
