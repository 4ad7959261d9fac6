use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::{Curvature, OneKernelRule}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Sophia-G: the mean of the gradient over a mean of the curvature, with no element above 1 (Liu et al. 2023, arXiv:2305.14342).
    ///
    /// The curvature is the square of a second gradient: of a loss whose labels are drawn from the model's own predictions. In the
    /// first of each `update_period` steps [`step_with`](crate::FusedOptimizer::step_with) calls its closure a second time, with
    /// evaluation number 1, for that loss, the mean over the same batch. In other steps, and by
    /// [`step`](candle_nn::Optimizer::step), the curvature of before is used. `rho` stands for the paper's rho times the batch size.
    pub struct Sophia = "sophia" {
        /// Learning rate: the largest step of an element.
        lr: 1e-4 in NON_NEGATIVE around 3e-4,
        /// Decay rate of the mean of the gradient.
        beta1: 0.965 in FRACTION,
        /// Decay rate of the mean of the curvature.
        beta2: 0.99 in FRACTION,
        /// Multiplies the curvature: the larger, the fewer elements reach 1.
        rho: 0.04 in NON_NEGATIVE,
        /// Keeps the division finite.
        eps: 1e-15 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 0.1 in NON_NEGATIVE,
        /// Steps from one second gradient to the next; rounded, at least 1.
        update_period: 10.0 in NON_NEGATIVE,
    }
    formula: "every update_period steps h = beta2 h + (1 - beta2) q^2, q the gradient with drawn labels; m = beta1 m + (1 - beta1) g; theta -= lr (sign(m) min(1, abs(m) / (rho h + eps)) + wd theta)"
    best_for: "language models"
    family: Adaptive
}

impl Sophia {
    fn scalars_of(&self, is_curvature: bool) -> [f64; 6] {
        let is_curvature = f64::from(u8::from(is_curvature));
        [1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.rho, self.eps, is_curvature]
    }
}

impl OneKernelRule for Sophia {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 6] {
        self.scalars_of(false)
    }
    fn curvature(&self) -> Option<Curvature> {
        let period = (self.update_period.round() as u64).max(1);
        Some(Curvature { period, scalars: self.scalars_of(true).to_vec() })
    }
    /// The smallest mean has a sign.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

impl Elementwise for Sophia {
    const NAME: &'static str = "sophia";
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "rho", "eps", "is_curvature"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "hessian"];
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 2];

    /// Where `is_curvature` is set the gradient is that of the drawn labels, which moves the curvature alone.
    #[inline(always)]
    fn direction<R: Real>(
        [a, beta2, b, rho, eps, is_curvature]: [R; 6],
        grad: R,
        _param: R,
        [m, h]: [R; 2],
    ) -> (R, [R; 2]) {
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        let h = is_curvature.select_positive(beta2 * h + b * (grad * grad), h);
        let m = is_curvature.select_positive(m, m.lerp(grad, a));
        let u = m.sign() * (m.abs() / (rho * h + eps)).min(one);
        (is_curvature.select_positive(zero, u), [m, h])
    }
}
