use super::schedule_free_sgd::{Averaging, NUMBERS, point};
use crate::formula::{decay::Decay, elementwise::{Elementwise, Gives}, real::Real};
use crate::rule::{contract::{EvaluationPoint, OneKernelRule}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Schedule-Free AdamW: AdamW at the average of its own steps (Defazio et al. 2024, arXiv:2405.15682; schedulefree 1.4).
    ///
    /// What [`ScheduleFreeSgd`](crate::rules::ScheduleFreeSgd) says of evaluation holds here too, with `beta1` in place of `momentum`.
    pub struct ScheduleFreeAdamW = "schedule_free_adamw" {
        /// Learning rate.
        lr: 2.5e-3 in NON_NEGATIVE around 3e-3,
        /// How far `y` is from `z` to `x`.
        beta1: 0.9 in OPEN_FRACTION,
        /// Decay rate of the mean of the square of the gradient.
        beta2: 0.999 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay, at `y`.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
        /// Updates in which the learning rate rises from 0.
        warmup: 0.0 in NON_NEGATIVE,
        /// The weight of update t in the average is t^r ..
        r: 0.0 in NON_NEGATIVE,
        /// .. times the largest learning rate so far to this power.
        weight_lr_power: 2.0 in NON_NEGATIVE,
    }
    formula: "a = lr min(1, t / warmup); w = t^r max(a)^weight_lr_power; c = w / sum(w); v = beta2 v + (1 - beta2) g^2; u = g / (sqrt(v / (1 - beta2^t)) + eps) + wd y; z -= a u; x = (1 - c) x + c z; y = (1 - beta1) z + beta1 x; theta is y, in evaluation x; z and x start at theta"
    best_for: "AdamW without a schedule, where the length of the run is not known"
    family: LearningRateFree
}

impl OneKernelRule for ScheduleFreeAdamW {
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        NUMBERS
    }
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 9] {
        let Self { lr, beta1: beta, beta2, eps, weight_decay, warmup, r, weight_lr_power } = *self;
        let [lr, share, y_step] = Averaging { lr, beta, warmup, r, weight_lr_power }.scalars(at);
        let v_scale = 1.0 / (1.0 - beta2.powf(at.t as f64));
        [lr, share, y_step, weight_decay, beta2, 1.0 - beta2, v_scale, eps, at.starts_flag()]
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        point(self.beta1)
    }
}

impl Elementwise for ScheduleFreeAdamW {
    const NAME: &'static str = "schedule_free_adamw";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] =
        &["lr", "share", "y_step", "weight_decay", "beta2", "one_minus_beta2", "v_scale", "eps", "starts"];
    const SLOTS: &'static [&'static str] = &["z", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 9];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [lr, share, y_step, weight_decay, beta2, one_minus_beta2, v_scale, eps, starts]: [R; 9],
        grad: R,
        y: R,
        [z, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let z = starts.select_positive(y, z);
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let u = grad / ((v * v_scale).sqrt() + eps) + weight_decay * y;
        (y.lerp(z, share) + y_step * u, [z - lr * u, v])
    }
}
