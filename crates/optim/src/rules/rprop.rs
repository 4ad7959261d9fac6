use crate::formula::{decay::Decay, elementwise::{Elementwise, Gives}, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Rprop: each element has its own step, which grows while the gradient keeps its sign and shrinks where it turns
    /// (Riedmiller & Braun 1993, IEEE ICNN).
    ///
    /// Where the gradient has turned it counts as 0, as in PyTorch: the element stays for one update. A schedule of `lr` has no effect
    /// after the first update.
    pub struct Rprop = "rprop" {
        /// First step of each element.
        lr: 1e-2 in NON_NEGATIVE,
        /// A step is multiplied by it where the gradient has turned.
        etaminus: 0.5 in OPEN_FRACTION,
        /// A step is multiplied by it where the gradient has kept its sign.
        etaplus: 1.2 in ABOVE_ONE,
        /// Smallest step.
        step_min: 1e-6 in NON_NEGATIVE,
        /// Largest step; it counts where `step_min` is larger.
        step_max: 50.0 in NON_NEGATIVE,
    }
    formula: "q = sign(g g_prev); s = s etaplus if q > 0, s etaminus if q < 0, else s (s = lr before); s = min(max(s, step_min), step_max); g = 0 if q < 0; theta -= sign(g) s; then g_prev = g"
    best_for: "full batches: the noise of small ones turns the gradient"
    family: Adaptive
}

impl OneKernelRule for Rprop {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 5] {
        [self.lr * at.starts_flag(), self.etaminus, self.etaplus, self.step_min, self.step_max]
    }
    /// The smallest gradient has a sign.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

impl Elementwise for Rprop {
    const NAME: &'static str = "rprop";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &["first", "etaminus", "etaplus", "step_min", "step_max"];
    const SLOTS: &'static [&'static str] = &["prev", "step_size"];
    type Scalars<R: Real> = [R; 5];
    type State<R: Real> = [R; 2];

    /// `first` is 0 after the first update.
    #[inline(always)]
    fn direction<R: Real>(
        [first, etaminus, etaplus, step_min, step_max]: [R; 5],
        grad: R,
        param: R,
        [prev, step]: [R; 2],
    ) -> (R, [R; 2]) {
        // Not the product of the two, which can underflow.
        let (kept, one) = (grad.sign() * prev, R::constant(1.0));
        let factor = kept.select_positive(etaplus, (-kept).select_positive(etaminus, one));
        let step = ((step + first) * factor).max(step_min).min(step_max);
        let grad = (-kept).select_positive(R::constant(0.0), grad);
        (param - grad.sign() * step, [grad, step])
    }
}
