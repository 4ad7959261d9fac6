use super::muon::{Momentum, coefficients, others_as_adamw, products, scale};
use crate::backend::kernel::Kernel;
use crate::matrix::elementwise::weighted_sum;
use crate::matrix::newton_schulz::orthogonalised;
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule};
use candle_core::{D, Result, Tensor};

hyperparameters! {
    /// NorMuon: Muon, whose rows are brought to one length by the mean of their squares (Li et al. 2025, arXiv:2510.05491).
    ///
    /// Which parameters are matrices, and what is done with all others, is as in `muon`.
    pub struct NorMuon = "normuon" {
        /// Learning rate.
        lr: 0.02 in NON_NEGATIVE around 1e-2,
        /// Decay rate of the mean of the gradient.
        momentum: 0.95 in FRACTION,
        /// Decay rate of the mean of the squares of a row.
        beta2: 0.95 in FRACTION,
        /// Look ahead along the momentum.
        nesterov: true,
        /// Keeps the divisions finite.
        eps: 1e-10 in NON_NEGATIVE,
        /// Decoupled weight decay of matrices.
        weight_decay: 0.0 in NON_NEGATIVE around 3e-2,
        /// The length of a step: sqrt(max(1, rows / columns)), or 0.2 sqrt(max(rows, columns)).
        scale: "original" of ["original", "match_rms_adamw"],
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
    formula: "of matrices: o as muon's; v = beta2 v + (1 - beta2) (mean of o^2 over a row); p = o / (sqrt(v) + eps); theta -= lr (scale p norm(o) / (norm(p) + eps) + wd theta). Others: AdamW"
    best_for: "where muon works"
    family: Matrix
}

impl Rule for NorMuon {
    as_declared!();
    fn usual(&self, key: &str) -> Option<f64> {
        if key == "lr" && self.scale == "original" { Some(2e-2) } else { self.spec().usual(key) }
    }
    others_as_adamw!();
}

impl MatrixRule for NorMuon {
    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Momentum>() }
    }
    fn scalars(&self, _starts: bool) -> Vec<f64> {
        Momentum::scalars(self.momentum, self.nesterov)
    }
    fn smallest_state(&self) -> f64 {
        1e-35
    }
    fn state(&self, rows: usize, _columns: usize) -> Vec<(&'static str, Vec<usize>)> {
        vec![("second_momentum_buffer", vec![rows, 1])]
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
        // All sums are of rows, and few numbers.
        let squares = o.sqr()?.sum_keepdim(D::Minus1)?;
        let v = match &state[..] {
            [v] => weighted_sum(self.beta2, v, (1.0 - self.beta2) / columns as f64, &squares)?,
            _ => candle_core::bail!("normuon: {} tensors of state, not 1", state.len()),
        };
        let factors = (v.sqrt()? + self.eps)?.recip()?;
        let norm = squares.sum_keepdim(1)?.sqrt()?;
        let norm_after = (squares * factors.sqr()?)?.sum_keepdim(1)?.sqrt()?;
        let length = (norm / (norm_after + self.eps)?)? * scale(self.scale, rows, columns);
        Ok((Some(o.broadcast_mul(&factors.broadcast_mul(&length?)?)?), vec![v]))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}
