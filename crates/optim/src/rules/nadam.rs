use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// NAdam: Adam with Nesterov's look-ahead and a momentum that grows (Dozat 2016, ICLR workshop).
    ///
    /// The momentum follows the paper's schedule, as in PyTorch; optax's has none. Its product is part of the saved state.
    pub struct NAdam = "nadam" {
        /// Learning rate.
        lr: 2e-3 in NON_NEGATIVE around 1e-3,
        /// Decay rate of the mean of the gradient, and the limit of the momentum.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
        /// How fast the momentum grows.
        momentum_decay: 4e-3 in NON_NEGATIVE,
        /// Decoupled weight decay, as AdamW's, rather than L2.
        decoupled_weight_decay: false,
    }
    formula: "m and v as Adam's, or AdamW's with decoupled_weight_decay; mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2); p_t = mu_1 .. mu_t; theta -= lr (g (1 - mu_t) / (1 - p_t) + m mu_(t+1) / (1 - p_(t+1))) / (sqrt(v / (1 - beta2^t)) + eps)"
    best_for: "where Adam works, a little faster at the start"
    family: Adaptive
}

impl OneKernelRule for NAdam {
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        &[("mu_product", 1.0)]
    }
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 9] {
        let t = at.t as f64;
        let mu = |t: f64| self.beta1 * (1.0 - 0.5 * 0.96f64.powf(t * self.momentum_decay));
        at.numbers[0] *= mu(t);
        let (product, next) = (at.numbers[0], mu(t + 1.0));
        let (l2, decoupled) =
            if self.decoupled_weight_decay { (0.0, self.weight_decay) } else { (self.weight_decay, 0.0) };
        let (grad_share, m_share) = ((1.0 - mu(t)) / (1.0 - product), next / (1.0 - product * next));
        let v_scale = 1.0 / (1.0 - self.beta2.powf(t));
        [1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps, v_scale, grad_share, m_share, l2, decoupled]
    }
}

impl Elementwise for NAdam {
    const NAME: &'static str = "nadam";
    const DECAY: Decay = Decay::Own;
    const SCALARS: &'static [&'static str] = &[
        "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "v_scale", "grad_share", "m_share", "l2", "decoupled",
    ];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 9];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, v_scale, grad_share, m_share, l2, decoupled]: [R; 9],
        grad: R,
        param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let grad = grad + l2 * param;
        let m = m.lerp(grad, one_minus_beta1);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let u = (grad_share * grad + m_share * m) / ((v * v_scale).sqrt() + eps);
        (u + decoupled * param, [m, v])
    }
}
