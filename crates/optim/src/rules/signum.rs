use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Signum: the sign of the mean gradient, with decoupled weight decay (Bernstein et al. 2018, arXiv:1802.04434).
    pub struct Signum = "signum" {
        /// Learning rate: the size of every element's step, so 3 to 10 times below AdamW's.
        lr: 1e-4 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient; 0 is signSGD.
        momentum: 0.9 in FRACTION,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-1,
    }
    formula: "b = momentum b + (1 - momentum) g; theta -= lr (sign(b) + wd theta)"
    best_for: "large batches, and workers that send signs alone"
    family: FirstOrder
}

impl OneKernelRule for Signum {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 1] {
        [1.0 - self.momentum]
    }
    /// The smallest mean has a sign.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

impl Elementwise for Signum {
    const NAME: &'static str = "signum";
    const SCALARS: &'static [&'static str] = &["one_minus_momentum"];
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>([share]: [R; 1], grad: R, _param: R, [b]: [R; 1]) -> (R, [R; 1]) {
        let b = b.lerp(grad, share);
        (b.sign(), [b])
    }
}
