use crate::backend::kernel::Kernel;
use crate::formula::{
    decay::Decay,
    elementwise::{Elementwise, Gives},
    real::Real,
};
use crate::matrix::newton_schulz::{Coefficients, orthogonalised};
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule};
use candle_core::{DType, Result, Tensor};

hyperparameters! {
    /// Muon: the momentum of a hidden matrix, made orthogonal (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>).
    ///
    /// A matrix is a parameter of two or more dimensions, the first by all others, unless its name says embedding or head. All other
    /// parameters are updated as by AdamW, with the learning rate `lr adamw_lr_factor`.
    ///
    /// With `match_rms_adamw` (Liu et al. 2025, arXiv:2502.16982) a step is as long as AdamW's, so that AdamW's learning rate fits; with
    /// `original` Jordan's 0.02 is usual. A kernel of a convolution counts as out x (in kh kw) there too.
    pub struct Muon = "muon" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE around 3e-3,
        /// Decay rate of the mean of the gradient.
        momentum: 0.95 in FRACTION,
        /// Look ahead along the momentum.
        nesterov: true,
        /// Decoupled weight decay of matrices.
        weight_decay: 0.1 in NON_NEGATIVE around 3e-2,
        /// The length of a step: 0.2 sqrt(max(rows, columns)), or sqrt(max(1, rows / columns)).
        scale: "match_rms_adamw" of ["match_rms_adamw", "original"],
        /// The polynomials that make a matrix orthogonal.
        coefficients: "jordan" of ["jordan", "quintic", "polar_express"],
        /// The type of the products on a GPU, of parameters that are not f64. On the CPU it is that of the parameter, f32 at least.
        products: "bf16" of ["bf16", "f32"],
        /// The learning rate of all other parameters, as a multiple of `lr`.
        adamw_lr_factor: 1.0 in NON_NEGATIVE,
        /// AdamW's decay rate of the mean of the gradient.
        adamw_beta1: 0.9 in FRACTION,
        /// AdamW's decay rate of the mean of its square.
        adamw_beta2: 0.95 in FRACTION,
        /// Keeps AdamW's division finite.
        adamw_eps: 1e-8 in NON_NEGATIVE,
        /// AdamW's decoupled weight decay.
        adamw_weight_decay: 0.01 in NON_NEGATIVE,
    }
    formula: "of matrices: m = momentum m + (1 - momentum) g; u = (1 - momentum) g + momentum m, or m without nesterov; o = u made orthogonal; theta -= lr (scale o + wd theta). Others: AdamW"
    best_for: "hidden layers of transformers and convolutional networks: fewer updates than AdamW"
    family: Matrix
}

/// What Muon and its variants do with parameters that are no matrices, within `impl Rule for ..`.
macro_rules! others_as_adamw {
    () => {
        fn kernel(&self) -> &'static $crate::backend::kernel::Kernel {
            const { &$crate::backend::kernel::Kernel::of::<$crate::rules::adamw::AdamW>() }
        }
        fn scalars(&self, at: &mut $crate::rule::progress::Progress<'_>) -> Vec<f64> {
            let (beta1, beta2) = (self.adamw_beta1, self.adamw_beta2);
            let adamw = $crate::rules::adamw::AdamW { lr: 0.0, beta1, beta2, eps: self.adamw_eps, weight_decay: 0.0 };
            $crate::rule::contract::Rule::scalars(&adamw, at)
        }
        fn step_size(&self, _at: &$crate::rule::progress::Progress<'_>) -> f64 {
            self.lr * self.adamw_lr_factor
        }
        #[allow(clippy::misnamed_getters, reason = "the decay of matrices has the plain name")]
        fn weight_decay(&self) -> f64 {
            self.adamw_weight_decay
        }
        fn smallest_state(&self) -> f64 {
            $crate::rule::contract::smallest_state(self.adamw_eps)
        }
        fn matrix(&self) -> Option<&dyn $crate::rule::matrix::MatrixRule> {
            Some(self)
        }
    };
}
pub(crate) use others_as_adamw;

impl Rule for Muon {
    as_declared!();
    fn usual(&self, key: &str) -> Option<f64> {
        if key == "lr" && self.scale == "original" { Some(2e-2) } else { self.spec().usual(key) }
    }
    others_as_adamw!();
}

impl MatrixRule for Muon {
    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Momentum>() }
    }
    fn scalars(&self, _starts: bool) -> Vec<f64> {
        Momentum::scalars(self.momentum, self.nesterov)
    }
    fn smallest_state(&self) -> f64 {
        1e-35
    }
    fn state(&self, _rows: usize, _columns: usize) -> Vec<(&'static str, Vec<usize>)> {
        Vec::new()
    }
    fn transform(
        &self,
        _t: u64,
        matrices: Tensor,
        _parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let (_, rows, columns) = matrices.dims3()?;
        let scale = scale(self.scale, rows, columns);
        let directions = orthogonalised(matrices, coefficients(self.coefficients), products(self.products), scale)?;
        Ok((Some(directions), state))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// What the step of an orthogonal matrix is multiplied by.
pub(crate) fn scale(name: &str, rows: usize, columns: usize) -> f64 {
    let (rows, columns) = (rows as f64, columns as f64);
    if name == "original" { (rows / columns).max(1.0).sqrt() } else { 0.2 * rows.max(columns).sqrt() }
}

/// The coefficients of a name.
pub(crate) fn coefficients(name: &str) -> Coefficients {
    match name {
        "quintic" => Coefficients::Quintic,
        "polar_express" => Coefficients::PolarExpress,
        _ => Coefficients::Jordan,
    }
}

/// The type of a name.
pub(crate) fn products(name: &str) -> DType {
    if name == "bf16" { DType::BF16 } else { DType::F32 }
}

/// What is made orthogonal: the mean of the gradient, or a look ahead along it.
pub(crate) struct Momentum;

impl Momentum {
    pub(crate) fn scalars(momentum: f64, nesterov: bool) -> Vec<f64> {
        let ahead = if nesterov { momentum } else { 1.0 };
        vec![1.0 - momentum, 1.0 - ahead, ahead]
    }
}

impl Elementwise for Momentum {
    const NAME: &'static str = "muon_momentum";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = &["one_minus_momentum", "grad_share", "momentum_share"];
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    type Scalars<R: Real> = [R; 3];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_momentum, grad_share, momentum_share]: [R; 3],
        grad: R,
        _param: R,
        [m]: [R; 1],
    ) -> (R, [R; 1]) {
        let m = m.lerp(grad, one_minus_momentum);
        (grad_share * grad + momentum_share * m, [m])
    }
}
