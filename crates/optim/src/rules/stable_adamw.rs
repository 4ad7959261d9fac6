use crate::formula::decay::Decay;
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// StableAdamW: AdamW with shorter steps of a tensor whose gradient grows suddenly (Wortsman et al. 2023, arXiv:2304.13013).
    ///
    /// The learning rate falls where the gradient is large beside its mean square.
    /// The decay rates are corrected rather than the means, as in the paper. Weight decay is multiplied by the lowered learning
    /// rate.
    pub struct StableAdamW = "stable_adamw" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.99 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-6 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 1e-2 in NON_NEGATIVE around 3e-2,
    }
    formula: "b = beta (1 - beta^(t-1)) / (1 - beta^t) for both betas; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; r = max(1, sqrt(mean(g^2 / max(v, eps^2)))) per tensor; u = m / (sqrt(v) + eps); theta -= lr / r (u + wd theta)"
    best_for: "large models whose loss spikes; takes the place of gradient clipping"
    family: Adaptive
}

impl OneKernelRule for StableAdamW {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 7] {
        // 1 - beta (1 - beta^(t-1)) / (1 - beta^t)
        let share = |beta: f64| (1.0 - beta) / (1.0 - beta.powf(at.t as f64));
        let b = share(self.beta2);
        [share(self.beta1), 1.0 - b, b, self.eps, self.eps * self.eps, self.weight_decay, 1.0]
    }
}

impl StableAdamW {
    #[inline(always)]
    fn mean_square<R: Real>([_, beta2, one_minus_beta2, ..]: [R; 7], grad: R, v: R) -> R {
        beta2 * v + one_minus_beta2 * (grad * grad)
    }
}

impl Elementwise for StableAdamW {
    const NAME: &'static str = "stable_adamw";
    const DECAY: Decay = Decay::Own;
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "eps_squared", "weight_decay", "scale"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SUMS: Sums = Sums { scope: Scope::Tensor, of: &[Summand::Value], factors: 1 };
    type Scalars<R: Real> = [R; 7];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 7], grad: R, param: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let [one_minus_beta1, _, _, eps, _, weight_decay, scale] = scalars;
        let m = m.lerp(grad, one_minus_beta1);
        let v = Self::mean_square(scalars, grad, v);
        (scale * (m / (v.sqrt() + eps) + weight_decay * param), [m, v])
    }

    /// The square of the gradient over its mean square.
    #[inline(always)]
    fn measured<R: Real>(scalars: [R; 7], grad: R, _param: R, [_, v]: [R; 2]) -> [R; MAX_SUMS] {
        let [.., eps_squared, _, _] = scalars;
        let v = Self::mean_square(scalars, grad, v);
        [grad * grad / v.max(eps_squared), R::constant(0.0), R::constant(0.0)]
    }

    fn factors<R: Real>(_scalars: [R; 7], [sum, ..]: [R; MAX_SUMS], len: R) -> [R; MAX_FACTORS] {
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        [one / (sum / len).sqrt().max(one), zero, zero, zero]
    }
}
