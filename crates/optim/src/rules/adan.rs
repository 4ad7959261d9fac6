use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Adan: Adam with Nesterov's look-ahead, from the mean of the gradient's differences (Xie et al. 2022, arXiv:2208.06677).
    ///
    /// The differences weigh `beta2`, as in the authors' code; optax takes `1 - beta2` there. Weight decay is proximal: the
    /// parameter that has moved is divided by `1 + lr weight_decay`.
    pub struct Adan = "adan" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE around 3e-3,
        /// Decay rate of the mean of the gradient.
        beta1: 0.98 in FRACTION,
        /// Decay rate of the mean of its differences, and their weight in the step.
        beta2: 0.92 in FRACTION,
        /// Decay rate of the mean square.
        beta3: 0.99 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Proximal weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "d = g - g of the update before (0 at t = 1); m = beta1 m + (1 - beta1) g; z = beta2 z + (1 - beta2) d; n = beta3 n + (1 - beta3) (g + beta2 d)^2; u = (m / (1 - beta1^t) + beta2 z / (1 - beta2^t)) / (sqrt(n / (1 - beta3^t)) + eps); theta = (theta - lr u) / (1 + lr wd)"
    best_for: "vision transformers and few epochs, with learning rates 5 to 10 times AdamW's"
    family: Adaptive
}

impl OneKernelRule for Adan {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 9] {
        let scale = |beta: f64| 1.0 / (1.0 - beta.powf(at.t as f64));
        let (m_scale, z_scale, n_scale) = (scale(self.beta1), self.beta2 * scale(self.beta2), scale(self.beta3));
        let (a, b, c) = (1.0 - self.beta1, 1.0 - self.beta2, 1.0 - self.beta3);
        [at.starts_flag(), a, self.beta2, b, c, self.eps, m_scale, z_scale, n_scale]
    }
    /// With this factor decoupled decay is proximal: `theta - lr / (1 + lr wd) (u + wd theta) = (theta - lr u) / (1 + lr wd)`.
    fn step_size(&self, _at: &Progress<'_>) -> f64 {
        self.lr / (1.0 + self.lr * self.weight_decay)
    }
}

impl Elementwise for Adan {
    const NAME: &'static str = "adan";
    const SCALARS: &'static [&'static str] = &[
        "starts", "one_minus_beta1", "beta2", "one_minus_beta2", "one_minus_beta3", "eps", "m_scale", "z_scale", "n_scale",
    ];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad"];
    type Scalars<R: Real> = [R; 9];
    type State<R: Real> = [R; 4];

    #[inline(always)]
    fn direction<R: Real>(
        [starts, one_minus_beta1, beta2, one_minus_beta2, one_minus_beta3, eps, m_scale, z_scale, n_scale]: [R; 9],
        grad: R,
        _param: R,
        [m, z, n, previous]: [R; 4],
    ) -> (R, [R; 4]) {
        let difference = grad - starts.select_positive(grad, previous);
        let ahead = grad + beta2 * difference;
        let m = m.lerp(grad, one_minus_beta1);
        let z = z.lerp(difference, one_minus_beta2);
        let n = n.lerp(ahead * ahead, one_minus_beta3);
        ((m * m_scale + z * z_scale) / ((n * n_scale).sqrt() + eps), [m, z, n, grad])
    }
}
