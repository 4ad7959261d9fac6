use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// LaProp: the mean of gradients that were normalised before, so that the two decay rates are free of each other (Liu,
    /// Ziyin & Ueda 2020, arXiv:2002.04839).
    ///
    /// The mean holds steps with the learning rates that they were made with. Dividing by the mean of those rates corrects for
    /// the start at 0, as in the authors' code.
    pub struct LaProp = "laprop" {
        /// Learning rate.
        lr: 4e-4 in NON_NEGATIVE around 1e-3,
        /// Decay rate of the mean of the normalised gradients.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean square of the gradient.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-15 in NON_NEGATIVE,
        /// Decoupled weight decay, as AdamW's; the authors' code decays the parameter that has moved.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "v = beta2 v + (1 - beta2) g^2; m = beta1 m + (1 - beta1) lr g / (sqrt(v / (1 - beta2^t)) + eps); l = beta1 l + (1 - beta1) lr; theta -= lr (m / l + wd theta)"
    best_for: "noisy gradients and a beta2 far below beta1, where Adam diverges"
    family: Adaptive
}

impl OneKernelRule for LaProp {
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        &[("exp_avg_lr", 0.0)]
    }
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 7] {
        let mean_lr = self.beta1 * at.numbers[0] + (1.0 - self.beta1) * self.lr;
        at.numbers[0] = mean_lr;
        // Every rate was 0 so far, and so is the mean of the steps.
        let m_scale = if mean_lr > 0.0 { 1.0 / mean_lr } else { 0.0 };
        let v_scale = 1.0 / (1.0 - self.beta2.powf(at.t as f64));
        [self.beta1, (1.0 - self.beta1) * self.lr, self.beta2, 1.0 - self.beta2, self.eps, m_scale, v_scale]
    }
    /// The root of 1e-38 is 1e-4 of the default `eps`, and stands beside it only for gradients below 1e-14.
    fn smallest_state(&self) -> f64 {
        if self.eps < 1e-15 { 0.0 } else { 1e-38 }
    }
}

impl Elementwise for LaProp {
    const NAME: &'static str = "laprop";
    const SCALARS: &'static [&'static str] =
        &["beta1", "one_minus_beta1_lr", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 7];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [beta1, one_minus_beta1_lr, beta2, one_minus_beta2, eps, m_scale, v_scale]: [R; 7],
        grad: R,
        _param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let m = beta1 * m + one_minus_beta1_lr * (grad / ((v * v_scale).sqrt() + eps));
        (m * m_scale, [m, v])
    }
}
