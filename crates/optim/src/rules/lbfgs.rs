use super::sgd::Plain;
use crate::backend::kernel::Kernel;
use crate::rule::{contract::{QuasiNewton, Rule, as_declared}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// L-BFGS: steps by an inverse Hessian that is made of the latest changes of gradient and parameters, as PyTorch's (Nocedal and
    /// Wright, Numerical Optimization, algorithms 7.4, 7.5, and 3.5 and 3.6 for the line search).
    ///
    /// A step evaluates the loss up to `max_eval` times, so it is made by [`step_with`](crate::FusedOptimizer::step_with) alone, whose
    /// closure must give the same loss for the same parameters: the whole data set or one batch. For parameters of f32 or f64, in
    /// one group, without clipping. It keeps `2 history_size` vectors of the parameters' size.
    pub struct Lbfgs = "lbfgs" {
        /// Length of a step along the direction, or of the line search's first.
        lr: 1.0 in NON_NEGATIVE,
        /// The most directions in a step.
        max_iter: 20.0 in NON_NEGATIVE,
        /// The most evaluations in a step; 0 is 1.25 max_iter.
        max_eval: 0.0 in NON_NEGATIVE,
        /// A step ends where no element of the gradient is larger.
        tolerance_grad: 1e-7 in NON_NEGATIVE,
        /// A step ends where loss and parameters change by less.
        tolerance_change: 1e-9 in NON_NEGATIVE,
        /// The most changes that are kept.
        history_size: 100.0 in NON_NEGATIVE,
        /// Search along each direction for a point where the strong Wolfe conditions hold.
        strong_wolfe: false,
    }
    formula: "y = g - last g; s = last change of theta; H from the latest pairs (y, s) with y s > 1e-10 and the scale y s / y y (two loops); theta -= a H g, a = lr or by the line search"
    best_for: "small problems without noise: fits, inverse problems, physics"
    family: FirstOrder
}

/// It moves flat vectors itself: the kernel, which is SGD's, stands for a state without slots.
impl Rule for Lbfgs {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Plain>() }
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        Vec::new()
    }
    fn scalars(&self, _at: &mut Progress<'_>) -> Vec<f64> {
        Vec::new()
    }
    fn quasi_newton(&self) -> Option<QuasiNewton> {
        let max_iter = self.max_iter.round().max(1.0);
        let max_eval = if self.max_eval == 0.0 { (1.25 * max_iter).floor() } else { self.max_eval.round().max(1.0) };
        Some(QuasiNewton {
            lr: self.lr,
            max_iter: max_iter as u64,
            max_eval: max_eval as u64,
            tolerance_grad: self.tolerance_grad,
            tolerance_change: self.tolerance_change,
            history_size: (self.history_size.round() as usize).max(1),
            strong_wolfe: self.strong_wolfe,
        })
    }
}
