use super::adamw::AdamW;
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// MARS-AdamW: AdamW on gradients that are corrected by the one before, and clipped to norm 1 per tensor (Yuan et al. 2024,
    /// arXiv:2411.10438).
    ///
    /// The gradient before the first is 0, as in the authors' code. They treat only tensors of two or more dimensions so, and give
    /// the others to AdamW, which is a matter of [groups](crate::Group).
    pub struct Mars = "mars" {
        /// Learning rate.
        lr: 3e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the corrected gradient.
        beta1: 0.95 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.99 in FRACTION,
        /// Strength of the correction.
        gamma: 0.025 in NON_NEGATIVE,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
    }
    formula: "c = g + gamma beta1 / (1 - beta1) (g - g of the update before); c /= max(1, norm(c)) per tensor; then AdamW's update by c"
    best_for: "language models: fewer tokens than AdamW to the same loss"
    family: Adaptive
}

impl Mars {
    /// The corrected gradient, not yet clipped.
    #[inline(always)]
    fn corrected<R: Real>(correction: R, grad: R, previous: R) -> R {
        grad + correction * (grad - previous)
    }
}

impl OneKernelRule for Mars {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 8] {
        let Self { lr, beta1, beta2, eps, .. } = *self;
        let [a, beta2, b, eps, m_scale, v_scale] = AdamW { lr, beta1, beta2, eps, weight_decay: 0.0 }.scalars(at);
        [a, beta2, b, eps, m_scale, v_scale, self.gamma * beta1 / (1.0 - beta1), 1.0]
    }
}

impl Elementwise for Mars {
    const NAME: &'static str = "mars";
    const SCALARS: &'static [&'static str] = &[
        "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale", "correction", "clip",
    ];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "previous_grad"];
    const SUMS: Sums = Sums { scope: Scope::Tensor, of: &[Summand::Square], factors: 1 };
    type Scalars<R: Real> = [R; 8];
    type State<R: Real> = [R; 3];

    #[inline(always)]
    fn direction<R: Real>(
        [a, beta2, b, eps, m_scale, v_scale, correction, clip]: [R; 8],
        grad: R,
        param: R,
        [m, v, previous]: [R; 3],
    ) -> (R, [R; 3]) {
        let corrected = Self::corrected(correction, grad, previous) * clip;
        let (u, [m, v]) = AdamW::direction([a, beta2, b, eps, m_scale, v_scale], corrected, param, [m, v]);
        (u, [m, v, grad])
    }

    /// The corrected gradient.
    #[inline(always)]
    fn measured<R: Real>(scalars: [R; 8], grad: R, _param: R, [.., previous]: [R; 3]) -> [R; MAX_SUMS] {
        let [.., correction, _] = scalars;
        [Self::corrected(correction, grad, previous), R::constant(0.0), R::constant(0.0)]
    }

    fn factors<R: Real>(_scalars: [R; 8], [squares, ..]: [R; MAX_SUMS], _len: R) -> [R; MAX_FACTORS] {
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        [one / squares.sqrt().max(one), zero, zero, zero]
    }
}
