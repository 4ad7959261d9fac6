use super::adamw::AdamW;
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Yogi: Adam whose mean square moves by a share of the square gradient and no more (Zaheer et al. 2018, "Adaptive Methods
    /// for Nonconvex Optimization").
    ///
    /// Both means start at `initial_accumulator` and are corrected as Adam's, as in optax.
    pub struct Yogi = "yogi" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE around 3e-3,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// 1 minus the share of the square gradient that the mean square moves by.
        beta2: 0.999 in FRACTION,
        /// Keeps the step small where the gradient was small so far.
        eps: 1e-3 in NON_NEGATIVE,
        /// The first value of both means.
        initial_accumulator: 1e-6 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "m = beta1 m + (1 - beta1) g; v -= (1 - beta2) sign(v - g^2) g^2; u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps); theta -= lr (u + wd theta)"
    best_for: "rare gradients of very different size, where Adam's mean square forgets too fast"
    family: Adaptive
}

impl OneKernelRule for Yogi {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 7] {
        let Self { lr, beta1, beta2, eps, .. } = *self;
        let [a, _, b, eps, m_scale, v_scale] = AdamW { lr, beta1, beta2, eps, weight_decay: 0.0 }.scalars(at);
        [at.starts_flag(), self.initial_accumulator, a, b, eps, m_scale, v_scale]
    }
}

impl Elementwise for Yogi {
    const NAME: &'static str = "yogi";
    const SCALARS: &'static [&'static str] =
        &["starts", "first", "one_minus_beta1", "one_minus_beta2", "eps", "m_scale", "v_scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 7];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [starts, first, one_minus_beta1, one_minus_beta2, eps, m_scale, v_scale]: [R; 7],
        grad: R,
        _param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let m = starts.select_positive(first, m).lerp(grad, one_minus_beta1);
        let (v, square) = (starts.select_positive(first, v), grad * grad);
        let v = v - one_minus_beta2 * ((v - square).sign() * square);
        (m * m_scale / ((v * v_scale).sqrt() + eps), [m, v])
    }
}
