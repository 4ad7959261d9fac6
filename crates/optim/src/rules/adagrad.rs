use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Adagrad: the gradient over the root of the sum of all its squares (Duchi et al. 2011, JMLR 12).
    ///
    /// The sum starts at `initial_accumulator_value`, 0 as in PyTorch; optax starts at 0.1 with an `eps` of 1e-7.
    pub struct Adagrad = "adagrad" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE around 3e-2,
        /// The learning rate of update t is divided by `1 + (t - 1) lr_decay`.
        lr_decay: 0.0 in NON_NEGATIVE,
        /// Keeps the division finite.
        eps: 1e-10 in NON_NEGATIVE,
        /// First value of the sum.
        initial_accumulator_value: 0.0 in NON_NEGATIVE,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; s += g^2 (s = initial_accumulator_value before); theta -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)"
    best_for: "sparse features, whose rare gradients keep a large step"
    family: Adaptive
}

impl OneKernelRule for Adagrad {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 2] {
        [self.eps, self.initial_accumulator_value * at.starts_flag()]
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        self.lr / (1.0 + (at.t - 1) as f64 * self.lr_decay)
    }
}

impl Elementwise for Adagrad {
    const NAME: &'static str = "adagrad";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = &["eps", "initial"];
    const SLOTS: &'static [&'static str] = &["sum"];
    type Scalars<R: Real> = [R; 2];
    type State<R: Real> = [R; 1];

    /// `initial` is 0 after the first update.
    #[inline(always)]
    fn direction<R: Real>([eps, initial]: [R; 2], grad: R, _param: R, [sum]: [R; 1]) -> (R, [R; 1]) {
        let sum = sum + initial + grad * grad;
        (grad / (sum.sqrt() + eps), [sum])
    }
}
