use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Lion: the sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023, arXiv:2302.06675).
    pub struct Lion = "lion" {
        /// Learning rate: the size of every element's step, so 3 to 10 times below AdamW's.
        lr: 1e-4 in NON_NEGATIVE,
        /// Weight of the momentum in the step.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the momentum.
        beta2: 0.99 in FRACTION,
        /// Decoupled weight decay: 3 to 10 times above AdamW's.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-1,
    }
    formula: "u = sign(beta1 m + (1 - beta1) g); theta -= lr (u + wd theta); then m = beta2 m + (1 - beta2) g"
    best_for: "large batches and memory: half of AdamW's state"
    family: FirstOrder
}

impl OneKernelRule for Lion {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 2] {
        [1.0 - self.beta1, 1.0 - self.beta2]
    }
    /// The smallest momentum has a sign.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

impl Elementwise for Lion {
    const NAME: &'static str = "lion";
    const SCALARS: &'static [&'static str] = &["one_minus_beta1", "one_minus_beta2"];
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars<R: Real> = [R; 2];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>([a, b]: [R; 2], grad: R, _param: R, [m]: [R; 1]) -> (R, [R; 1]) {
        (m.lerp(grad, a).sign(), [m.lerp(grad, b)])
    }
}
