use crate::backend::kernel::Kernel;
use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::{Rule, as_declared}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// Stochastic gradient descent with momentum, dampening, Nesterov's look-ahead and L2 decay (Sutskever et al. 2013).
    pub struct Sgd = "sgd" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE around 1e-1,
        /// Decay rate of the momentum buffer; 0 keeps no buffer.
        momentum: 0.0 in NON_NEGATIVE,
        /// Share of the gradient that does not enter the buffer, but for the first that it gets.
        dampening: 0.0 in NON_NEGATIVE,
        /// Look ahead along the buffer. Has an effect only with momentum.
        nesterov: false,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; b = momentum b + (1 - dampening) g (b = g at its first use); u = g + momentum b if nesterov else b; theta -= lr u"
    best_for: "convolutional networks, with momentum 0.9: the best final accuracy when lr and schedule are tuned"
    family: FirstOrder
}

/// Without momentum: the gradient.
pub(super) struct Plain;

impl Elementwise for Plain {
    const NAME: &'static str = "sgd";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = &[];
    const SLOTS: &'static [&'static str] = &[];
    type Scalars<R: Real> = [R; 0];
    type State<R: Real> = [R; 0];

    #[inline(always)]
    fn direction<R: Real>([]: [R; 0], grad: R, _param: R, []: [R; 0]) -> (R, [R; 0]) {
        (grad, [])
    }
}

struct Momentum;

impl Elementwise for Momentum {
    const NAME: &'static str = "sgd_momentum";
    const DECAY: Decay = Decay::L2;
    const SCALARS: &'static [&'static str] = &["momentum", "grad_share", "nesterov"];
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    type Scalars<R: Real> = [R; 3];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>([momentum, grad_share, nesterov]: [R; 3], grad: R, _param: R, [b]: [R; 1]) -> (R, [R; 1]) {
        let b = momentum * b + grad_share * grad;
        (nesterov.select_positive(grad + momentum * b, b), [b])
    }
}

impl Rule for Sgd {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        self.kernels()[usize::from(self.momentum != 0.0)]
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![const { &Kernel::of::<Plain>() }, const { &Kernel::of::<Momentum>() }]
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        if self.momentum == 0.0 {
            return Vec::new();
        }
        let grad_share = if at.starts { 1.0 } else { 1.0 - self.dampening };
        vec![self.momentum, grad_share, f64::from(u8::from(self.nesterov))]
    }
}
