use super::muon::{Momentum, coefficients, others_as_adamw, products};
use crate::backend::kernel::Kernel;
use crate::formula::{
    decay::Decay,
    elementwise::{Elementwise, Gives},
    real::Real,
};
use crate::matrix::elementwise::weighted_sum;
use crate::matrix::newton_schulz::orthogonalised;
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule};
use candle_core::{Result, Tensor};

hyperparameters! {
    /// AdaMuon: Muon of the momentum's sign, each element over the root of the mean of its square (Si et al. 2025, arXiv:2507.11005).
    ///
    /// Which parameters are matrices, and what is done with all others, is as in `muon`. A step is as long as AdamW's. timm and
    /// pytorch-optimizer do not take the sign; pytorch-optimizer corrects the mean for its start, which the length makes up for.
    pub struct AdaMuon = "adamuon" {
        /// Learning rate.
        lr: 0.02 in NON_NEGATIVE around 1e-2,
        /// Decay rate of the mean of the gradient.
        momentum: 0.95 in FRACTION,
        /// Decay rate of the mean of the square.
        beta2: 0.95 in FRACTION,
        /// Look ahead along the momentum.
        nesterov: true,
        /// Keeps the divisions finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay of matrices.
        weight_decay: 0.01 in NON_NEGATIVE around 3e-2,
        /// The polynomials that make a matrix orthogonal.
        coefficients: "jordan" of ["jordan", "quintic", "polar_express"],
        /// The type of the products on a GPU, of parameters that are not f64. On the CPU it is that of the parameter, f32 at least.
        products: "bf16" of ["bf16", "f32"],
        /// The learning rate of all other parameters, as a multiple of `lr`.
        adamw_lr_factor: 0.05 in NON_NEGATIVE,
        /// AdamW's decay rate of the mean of the gradient.
        adamw_beta1: 0.9 in FRACTION,
        /// AdamW's decay rate of the mean of its square.
        adamw_beta2: 0.95 in FRACTION,
        /// Keeps AdamW's division finite.
        adamw_eps: 1e-8 in NON_NEGATIVE,
        /// AdamW's decoupled weight decay.
        adamw_weight_decay: 0.01 in NON_NEGATIVE,
    }
    formula: "of matrices: u as muon's; o = sign(u) made orthogonal; v = beta2 v + (1 - beta2) o^2; p = o / (sqrt(v) + eps); theta -= lr (0.2 sqrt(rows columns) p / (norm(p) + eps) + wd theta). Others: AdamW"
    best_for: "where muon works"
    family: Matrix
}

impl Rule for AdaMuon {
    as_declared!();
    others_as_adamw!();
}

impl MatrixRule for AdaMuon {
    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Sign>() }
    }
    fn scalars(&self, _starts: bool) -> Vec<f64> {
        Momentum::scalars(self.momentum, self.nesterov)
    }
    fn state(&self, rows: usize, columns: usize) -> Vec<(&'static str, Vec<usize>)> {
        vec![("exp_avg_sq", vec![rows, columns])]
    }
    fn transform(
        &self,
        _t: u64,
        matrices: Tensor,
        _parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let (_, rows, columns) = matrices.dims3()?;
        let o = orthogonalised(matrices, coefficients(self.coefficients), products(self.products), 1.0)?;
        let v = match &state[..] {
            [v] => weighted_sum(self.beta2, v, 1.0 - self.beta2, &o.sqr()?)?,
            _ => candle_core::bail!("adamuon: {} tensors of state, not 1", state.len()),
        };
        let p = (o / (v.sqrt()? + self.eps)?)?;
        let norm = p.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
        let length = ((norm + self.eps)?.recip()? * (0.2 * ((rows * columns) as f64).sqrt()))?;
        Ok((Some(p.broadcast_mul(&length)?), vec![v]))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// The sign of what Muon makes orthogonal.
struct Sign;

impl Elementwise for Sign {
    const NAME: &'static str = "adamuon_sign";
    const DECAY: Decay = Decay::Own;
    const GIVES: Gives = Gives::Parameter;
    const SCALARS: &'static [&'static str] = Momentum::SCALARS;
    const SLOTS: &'static [&'static str] = Momentum::SLOTS;
    type Scalars<R: Real> = [R; 3];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>(scalars: [R; 3], grad: R, param: R, state: [R; 1]) -> (R, [R; 1]) {
        let (u, state) = Momentum::direction(scalars, grad, param, state);
        (u.sign(), state)
    }
}
