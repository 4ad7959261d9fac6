use super::adamw::AdamW;
use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Adam with L2 decay (Kingma & Ba 2015, arXiv:1412.6980).
    pub struct Adam = "adam" {
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
    formula: "g += wd theta; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; theta -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)"
    best_for: "quick progress with little tuning, where no weight decay is wanted"
    family: Adaptive
}

impl OneKernelRule for Adam {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 6] {
        AdamW { lr: self.lr, beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: 0.0 }.scalars(at)
    }
}

/// AdamW's direction; only the decay differs.
impl Elementwise for Adam {
    const NAME: &'static str = "adam";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = AdamW::SCALARS;
    const SLOTS: &'static [&'static str] = AdamW::SLOTS;
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 6], grad: R, param: R, state: [R; 2]) -> (R, [R; 2]) {
        AdamW::direction(scalars, grad, param, state)
    }
}
