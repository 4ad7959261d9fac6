use crate::backend::kernel::Kernel;
use crate::formula::{decay::Decay, elementwise::Elementwise, real::Real};
use crate::rule::{contract::{Rule, as_declared}, declare::hyperparameters, progress::Progress};

hyperparameters! {
    /// RMSprop: the gradient over the root of its running mean square (Hinton 2012, lecture 6e; centered: Graves 2013,
    /// arXiv:1308.0850).
    ///
    /// `eps` is inside the root, as in optax, Keras and TensorFlow; `eps_inside = false` puts it outside, as in PyTorch.
    /// The centered variance `v - a^2` can round below 0 and is clamped there.
    pub struct RmsProp = "rmsprop" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE around 1e-3,
        /// Decay rate of the mean square.
        alpha: 0.99 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// `sqrt(v + eps)` rather than `sqrt(v) + eps`.
        eps_inside: true,
        /// Decay rate of the momentum buffer; 0 keeps no buffer.
        momentum: 0.0 in NON_NEGATIVE,
        /// Divide by the standard deviation: subtract the square of the running mean.
        centered: false,
        /// L2 weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
    }
    formula: "g += wd theta; v = alpha v + (1 - alpha) g^2; a = alpha a + (1 - alpha) g; u = g / sqrt(v - a^2 if centered else v, + eps); b = momentum b + u; theta -= lr (b if momentum else u)"
    best_for: "recurrent networks and reinforcement learning"
    family: Adaptive
}

const SCALARS: &[&str] = &["alpha", "one_minus_alpha", "eps_inside", "eps_outside", "momentum"];

#[inline(always)]
fn mean_square<R: Real>([alpha, one_minus_alpha, ..]: [R; 5], grad: R, v: R) -> R {
    alpha * v + one_minus_alpha * (grad * grad)
}

#[inline(always)]
fn normalise<R: Real>([_, _, eps_inside, eps_outside, _]: [R; 5], grad: R, variance: R) -> R {
    grad / ((variance + eps_inside).sqrt() + eps_outside)
}

#[inline(always)]
fn centre<R: Real>([_, one_minus_alpha, ..]: [R; 5], grad: R, v: R, mean: R) -> (R, R) {
    let mean = mean.lerp(grad, one_minus_alpha);
    ((v - mean * mean).max(R::constant(0.0)), mean)
}

/// One of the four sets of slots.
macro_rules! variant {
    ($Variant:ident = $name:literal, $n:literal $slots:expr, |$s:ident, $g:ident, $state:ident| $formula:block) => {
        struct $Variant;
        impl Elementwise for $Variant {
            const NAME: &'static str = $name;
            const DECAY: Decay = Decay::L2;
            const SCALARS: &'static [&'static str] = SCALARS;
            const SLOTS: &'static [&'static str] = &$slots;
            type Scalars<R: Real> = [R; 5];
            type State<R: Real> = [R; $n];
            #[inline(always)]
            fn direction<R: Real>($s: [R; 5], $g: R, _param: R, $state: [R; $n]) -> (R, [R; $n]) {
                $formula
            }
        }
    };
}

variant!(Plain = "rmsprop", 1 ["square_avg"], |s, grad, state| {
    let v = mean_square(s, grad, state[0]);
    (normalise(s, grad, v), [v])
});
variant!(Momentum = "rmsprop_momentum", 2 ["square_avg", "momentum_buffer"], |s, grad, state| {
    let v = mean_square(s, grad, state[0]);
    let b = s[4] * state[1] + normalise(s, grad, v);
    (b, [v, b])
});
variant!(Centered = "rmsprop_centered", 2 ["square_avg", "grad_avg"], |s, grad, state| {
    let v = mean_square(s, grad, state[0]);
    let (variance, mean) = centre(s, grad, v, state[1]);
    (normalise(s, grad, variance), [v, mean])
});
variant!(CenteredMomentum = "rmsprop_centered_momentum", 3 ["square_avg", "grad_avg", "momentum_buffer"], |s, grad, state| {
    let v = mean_square(s, grad, state[0]);
    let (variance, mean) = centre(s, grad, v, state[1]);
    let b = s[4] * state[2] + normalise(s, grad, variance);
    (b, [v, mean, b])
});

impl Rule for RmsProp {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        self.kernels()[usize::from(self.momentum != 0.0) + 2 * usize::from(self.centered)]
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![
            const { &Kernel::of::<Plain>() },
            const { &Kernel::of::<Momentum>() },
            const { &Kernel::of::<Centered>() },
            const { &Kernel::of::<CenteredMomentum>() },
        ]
    }
    fn scalars(&self, _at: &mut Progress<'_>) -> Vec<f64> {
        let (inside, outside) = if self.eps_inside { (self.eps, 0.0) } else { (0.0, self.eps) };
        vec![self.alpha, 1.0 - self.alpha, inside, outside, self.momentum]
    }
}
