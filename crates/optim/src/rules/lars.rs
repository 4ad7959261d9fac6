use crate::formula::decay::Decay;
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums};
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// LARS: SGD with momentum, whose gradient is rescaled per tensor to the norm of the parameter (You, Gitman & Ginsburg 2017,
    /// arXiv:1708.03888).
    ///
    /// The learning rate multiplies the momentum buffer, as PyTorch's; in optax it is in the buffer.
    pub struct Lars = "lars" {
        /// Learning rate.
        lr: 1.0 in NON_NEGATIVE around 3.0,
        /// Decay rate of the momentum buffer.
        momentum: 0.9 in NON_NEGATIVE,
        /// Look ahead along the buffer.
        nesterov: false,
        /// The share of a tensor's norm that a gradient may move it by, before the learning rate.
        trust_coefficient: 1e-3 in NON_NEGATIVE,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Weight decay, part of what is rescaled.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
        /// Rescale also where the weight decay is 0; otherwise r is 1 there.
        always_adapt: true,
    }
    formula: "r = trust_coefficient norm(theta) / (norm(g) + wd norm(theta) + eps) per tensor, 1 if either norm is 0; g = r (g + wd theta); b = momentum b + g; theta -= lr (g + momentum b if nesterov else b)"
    best_for: "convolutional networks and very large batches"
    family: FirstOrder
}

impl OneKernelRule for Lars {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 7] {
        let flag = |on: bool| f64::from(u8::from(on));
        let adapts = flag(self.always_adapt || self.weight_decay != 0.0);
        [self.momentum, flag(self.nesterov), self.trust_coefficient, self.eps, self.weight_decay, adapts, 1.0]
    }
}

impl Elementwise for Lars {
    const NAME: &'static str = "lars";
    const DECAY: Decay = Decay::Own;
    const SCALARS: &'static [&'static str] =
        &["momentum", "nesterov", "trust_coefficient", "eps", "weight_decay", "adapts", "ratio"];
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const SUMS: Sums = Sums { scope: Scope::Tensor, of: &[Summand::Square, Summand::Square], factors: 1 };
    type Scalars<R: Real> = [R; 7];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 7], grad: R, param: R, [b]: [R; 1]) -> (R, [R; 1]) {
        let [momentum, nesterov, _, _, weight_decay, _, ratio] = scalars;
        let grad = ratio * (grad + weight_decay * param);
        let b = momentum * b + grad;
        (nesterov.select_positive(grad + momentum * b, b), [b])
    }

    /// The parameter, and the gradient.
    #[inline(always)]
    fn measured<R: Real>(_scalars: [R; 7], grad: R, param: R, _state: [R; 1]) -> [R; MAX_SUMS] {
        [param, grad, R::constant(0.0)]
    }

    /// The trust ratio.
    fn factors<R: Real>(scalars: [R; 7], [param, grad, _]: [R; MAX_SUMS], _len: R) -> [R; MAX_FACTORS] {
        let [_, _, trust_coefficient, eps, weight_decay, adapts, _] = scalars;
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        let (size, slope) = (param.sqrt(), grad.sqrt());
        let ratio = trust_coefficient * size / (slope + weight_decay * size + eps);
        // 1 where a norm is 0; NaN is not positive, and stays.
        let ratio = param.select_positive(grad.select_positive(ratio, one + zero * grad), one + zero * param);
        [adapts.select_positive(ratio, one), zero, zero, zero]
    }
}
