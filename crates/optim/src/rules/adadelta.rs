use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Adadelta: steps in the parameter's own unit, from the mean square of the steps before (Zeiler 2012, arXiv:1212.5701).
    pub struct Adadelta = "adadelta" {
        /// Learning rate: 1 in the paper.
        lr: 1.0 in NON_NEGATIVE,
        /// Decay rate of both mean squares.
        rho: 0.9 in FRACTION,
        /// Starts the first steps, and keeps the division finite.
        eps: 1e-6 in NON_NEGATIVE,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; v = rho v + (1 - rho) g^2; u = g sqrt(a + eps) / sqrt(v + eps); theta -= lr u; then a = rho a + (1 - rho) u^2"
    best_for: "runs without a learning rate to tune, where a slow start does no harm"
    family: Adaptive
}

impl OneKernelRule for Adadelta {
    fn scalars(&self, _at: &mut Progress<'_>) -> [f64; 3] {
        [self.rho, 1.0 - self.rho, self.eps]
    }
}

impl Elementwise for Adadelta {
    const NAME: &'static str = "adadelta";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = &["rho", "one_minus_rho", "eps"];
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];
    type Scalars<R: Real> = [R; 3];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>([rho, one_minus_rho, eps]: [R; 3], grad: R, _param: R, [v, a]: [R; 2]) -> (R, [R; 2]) {
        let v = rho * v + one_minus_rho * (grad * grad);
        let u = (a + eps).sqrt() / (v + eps).sqrt() * grad;
        (u, [v, rho * a + one_minus_rho * (u * u)])
    }
}
