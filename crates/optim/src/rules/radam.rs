use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// RAdam: Adam that starts as momentum, until the mean square is known well enough, and rectifies its step then (Liu et al.
    /// 2020, arXiv:1908.03265).
    ///
    /// `r > 5` decides, and `eps` is added to the uncorrected root, as in PyTorch; optax has `r >= 5` and the corrected root.
    pub struct RAdam = "radam" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square; the step is never adaptive where it is 2/3 or less.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
        /// Decoupled weight decay, as AdamW's, rather than L2.
        decoupled_weight_decay: false,
    }
    formula: "m and v as Adam's, or AdamW's with decoupled_weight_decay; n = 2 / (1 - beta2) - 1; r = n - 2 t beta2^t / (1 - beta2^t); c = sqrt((r - 4) (r - 2) n / ((n - 4) (n - 2) r)); u = m / (1 - beta1^t); theta -= lr (u c sqrt(1 - beta2^t) / (sqrt(v) + eps) if r > 5 else u)"
    best_for: "Adam without a warm-up"
    family: Adaptive
}

impl OneKernelRule for RAdam {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 8] {
        let t = at.t as f64;
        let (c1, left) = (1.0 - self.beta1.powf(t), self.beta2.powf(t));
        let longest = 2.0 / (1.0 - self.beta2) - 1.0;
        let length = longest - 2.0 * t * left / (1.0 - left);
        let rectified = if length > 5.0 {
            let now = (length - 4.0) * (length - 2.0) / length;
            let ever = (longest - 4.0) * (longest - 2.0) / longest;
            (now / ever * (1.0 - left)).sqrt()
        } else {
            0.0
        };
        let (l2, decoupled) =
            if self.decoupled_weight_decay { (0.0, self.weight_decay) } else { (self.weight_decay, 0.0) };
        [1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps, 1.0 / c1, rectified, l2, decoupled]
    }
}

impl Elementwise for RAdam {
    const NAME: &'static str = "radam";
    const DECAY: Decay = Decay::Own;
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "rectified", "l2", "decoupled"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 8];
    type State<R: Real> = [R; 2];

    /// `rectified` is 0 where the step is not adaptive.
    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, rectified, l2, decoupled]: [R; 8],
        grad: R,
        param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let grad = grad + l2 * param;
        let m = m.lerp(grad, one_minus_beta1);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let u = m * m_scale;
        let u = rectified.select_positive(u * rectified / (v.sqrt() + eps), u);
        (u + decoupled * param, [m, v])
    }
}
