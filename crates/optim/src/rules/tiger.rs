use super::signum::Signum;
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Tiger: Lion with one decay rate, which is Signum with a longer memory (Su 2023, github.com/bojone/tiger).
    ///
    /// The author's learning rates by kind of parameter are a matter of groups.
    pub struct Tiger = "tiger" {
        /// Learning rate: the size of every element's step, so 3 to 10 times below AdamW's.
        lr: 1e-3 in NON_NEGATIVE around 1e-4,
        /// Decay rate of the mean of the gradient.
        beta: 0.965 in FRACTION,
        /// Decoupled weight decay.
        weight_decay: 1e-2 in NON_NEGATIVE around 1e-1,
    }
    formula: "m = beta m + (1 - beta) g; theta -= lr (sign(m) + wd theta)"
    best_for: "language models, where memory is short: one mean, which also holds the sum of micro-batches"
    family: FirstOrder
}

impl OneKernelRule for Tiger {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 1] {
        [1.0 - self.beta]
    }
    /// The smallest mean has a sign.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

/// Signum's direction.
impl Elementwise for Tiger {
    const NAME: &'static str = "tiger";
    const SCALARS: &'static [&'static str] = &["one_minus_beta"];
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 1], grad: R, param: R, state: [R; 1]) -> (R, [R; 1]) {
        Signum::direction(scalars, grad, param, state)
    }
}
