use crate::formula::{decay::Decay, elementwise::{Elementwise, Gives}, real::Real};
use crate::rule::{contract::OneKernelRule, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Averaged stochastic gradient descent: a falling learning rate, and the mean of the parameters beside them (Polyak &
    /// Juditsky 1992, SIAM J. Control Optim. 30).
    ///
    /// The slot `ax` holds the mean from update `t0` on, and the parameter itself before. Where `lr` follows a schedule, an
    /// update has its own learning rate; PyTorch's has the one of the update before.
    pub struct Asgd = "asgd" {
        /// Learning rate of the first update.
        lr: 1e-2 in NON_NEGATIVE around 1e-1,
        /// How fast the learning rate falls; also a decay of the parameter.
        lambd: 1e-4 in NON_NEGATIVE,
        /// The power of its fall.
        alpha: 0.75 in NON_NEGATIVE,
        /// The update after which the mean is taken.
        t0: 1e6 in NON_NEGATIVE,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "eta = lr / (1 + lambd lr (t - 1))^alpha; theta -= eta (g + (wd + lambd) theta); ax += (theta - ax) / max(1, t - 1 - t0)"
    best_for: "convex problems, whose solution is the mean of the last parameters"
    family: FirstOrder
}

impl OneKernelRule for Asgd {
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 3] {
        let before = (at.t - 1) as f64;
        let eta = self.lr / (1.0 + self.lambd * self.lr * before).powf(self.alpha);
        [eta, self.weight_decay + self.lambd, 1.0 / (before - self.t0).max(1.0)]
    }
    /// The mean is a result: all of it is kept.
    fn smallest_state(&self) -> f64 {
        0.0
    }
}

impl Elementwise for Asgd {
    const NAME: &'static str = "asgd";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &["eta", "decay", "share"];
    const SLOTS: &'static [&'static str] = &["ax"];
    type Scalars<R: Real> = [R; 3];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>([eta, decay, share]: [R; 3], grad: R, param: R, [mean]: [R; 1]) -> (R, [R; 1]) {
        let param = param - eta * (grad + decay * param);
        // A mean of one value is the value, without rounding.
        (param, [(R::constant(1.0) - share).select_positive(mean.lerp(param, share), param)])
    }
}
