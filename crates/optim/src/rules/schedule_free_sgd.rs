use crate::formula::{decay::Decay, elementwise::{Elementwise, Gives}, real::Real};
use crate::rule::{contract::{EvaluationPoint, OneKernelRule}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Schedule-Free SGD: a step by the gradient at `y`, between a fast point `z` and the average `x` of all its values, in place
    /// of a schedule that ends (Defazio et al. 2024, arXiv:2405.15682; schedulefree 1.4).
    ///
    /// The parameters hold `y` in training. [`eval`](crate::FusedOptimizer::eval) writes `x = y + (1 - 1 / momentum)(z - y)`, which
    /// is what is to be evaluated and shipped, and [`train`](crate::FusedOptimizer::train) restores `y`. Means of batch norm are
    /// to be renewed at `x`.
    pub struct ScheduleFreeSgd = "schedule_free_sgd" {
        /// Learning rate.
        lr: 1.0 in NON_NEGATIVE,
        /// How far `y` is from `z` to `x`.
        momentum: 0.9 in OPEN_FRACTION,
        /// L2 weight decay, at `y`.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
        /// Updates in which the learning rate rises from 0.
        warmup: 0.0 in NON_NEGATIVE,
        /// The weight of update t in the average is t^r ..
        r: 0.0 in NON_NEGATIVE,
        /// .. times the largest learning rate so far to this power.
        weight_lr_power: 2.0 in NON_NEGATIVE,
    }
    formula: "a = lr min(1, t / warmup); w = t^r max(a)^weight_lr_power; c = w / sum(w); z -= a (g + wd y); x = (1 - c) x + c z; y = (1 - momentum) z + momentum x; theta is y, in evaluation x; z and x start at theta"
    best_for: "SGD without a schedule, where the length of the run is not known"
    family: LearningRateFree
}

/// The numbers that a Schedule-Free rule keeps: the sum of all weights, and the largest learning rate.
pub(super) const NUMBERS: &[(&str, f64)] = &[("weight_sum", 0.0), ("lr_max", 0.0)];

/// What all Schedule-Free rules share.
pub(super) struct Averaging {
    pub lr: f64,
    pub beta: f64,
    pub warmup: f64,
    pub r: f64,
    pub weight_lr_power: f64,
}

impl Averaging {
    /// The learning rate, the share of `z` in `x`, and what multiplies the direction in the step of `y`.
    pub fn scalars(&self, at: &mut Progress<'_>) -> [f64; 3] {
        let t = at.t as f64;
        let lr = if t < self.warmup { self.lr * t / self.warmup } else { self.lr };
        let [weight_sum, lr_max] = at.numbers else { unreachable!("two numbers are declared") };
        *lr_max = lr_max.max(lr);
        let weight = t.powf(self.r) * lr_max.powf(self.weight_lr_power);
        *weight_sum += weight;
        let share = if *weight_sum == 0.0 { 0.0 } else { weight / *weight_sum };
        [lr, share, lr * (self.beta * (1.0 - share) - 1.0)]
    }
}

/// `x = (y - (1 - beta) z) / beta`.
pub(super) fn point(beta: f64) -> Option<EvaluationPoint> {
    Some(EvaluationPoint { slot: "z", weight: 1.0 - 1.0 / beta })
}

impl OneKernelRule for ScheduleFreeSgd {
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        NUMBERS
    }
    fn scalars(&self, at: &mut Progress<'_>) -> [f64; 5] {
        let Self { lr, momentum: beta, weight_decay, warmup, r, weight_lr_power } = *self;
        let [lr, share, y_step] = Averaging { lr, beta, warmup, r, weight_lr_power }.scalars(at);
        [lr, share, y_step, weight_decay, at.starts_flag()]
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        point(self.momentum)
    }
}

/// `x` is not kept: with `x = (y - (1 - beta) z) / beta` the next `y` is a function of `y` and `z`.
impl Elementwise for ScheduleFreeSgd {
    const NAME: &'static str = "schedule_free_sgd";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &["lr", "share", "y_step", "weight_decay", "starts"];
    const SLOTS: &'static [&'static str] = &["z"];
    type Scalars<R: Real> = [R; 5];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>(
        [lr, share, y_step, weight_decay, starts]: [R; 5],
        grad: R,
        y: R,
        [z]: [R; 1],
    ) -> (R, [R; 1]) {
        let z = starts.select_positive(y, z);
        let u = grad + weight_decay * y;
        (y.lerp(z, share) + y_step * u, [z - lr * u])
    }
}
