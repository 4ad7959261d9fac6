use super::adamw::AdamW;
use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// AMSGrad: Adam whose denominator never shrinks (Reddi et al. 2018, arXiv:1904.09237).
    ///
    /// The maximum is over the uncorrected mean square, as in PyTorch; optax takes it over the corrected one.
    pub struct AmsGrad = "amsgrad" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = max(w, v); theta -= lr (m / (1 - beta1^t)) / (sqrt(w / (1 - beta2^t)) + eps)"
    best_for: "problems with rare large gradients, where Adam's step grows back too fast"
    family: Adaptive
}

impl OneKernelRule for AmsGrad {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 6] {
        AdamW { lr: self.lr, beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: 0.0 }.scalars(at)
    }
}

impl Elementwise for AmsGrad {
    const NAME: &'static str = "amsgrad";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = AdamW::SCALARS;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 3];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, v_scale]: [R; 6],
        grad: R,
        _param: R,
        [m, v, max]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = m.lerp(grad, one_minus_beta1);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let max = max.max(v);
        (m * m_scale / ((max * v_scale).sqrt() + eps), [m, v, max])
    }
}
