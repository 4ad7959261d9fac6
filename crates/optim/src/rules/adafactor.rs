use super::gradient::Gradient;
use crate::backend::kernel::Kernel;
use crate::formula::{
    elementwise::Elementwise,
    real::Real,
    sums::{MAX_FACTORS, MAX_SUMS, Scope, Summand, Sums},
};
use crate::matrix::elementwise::weighted_sum;
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule, progress::Progress, value::Range};
use candle_core::{D, Result, Tensor, bail};
use std::ops::Bound;

/// Finite and `<= 0`.
const NON_POSITIVE: Range = Range::new(Bound::Excluded(f64::NEG_INFINITY), Bound::Included(0.0), "a number <= 0");

hyperparameters! {
    /// Adafactor: of a matrix only the means of rows and columns of the squared gradient are kept, and a step is as long as the
    /// parameter is large (Shazeer & Stern 2018, arXiv:1804.04235).
    ///
    /// As in PyTorch: eps1 is a bound of the root of the mean square and not added to the square. A matrix is a parameter of two or more
    /// dimensions, the first by all others; PyTorch takes the last two of a convolution's kernel. What has fewer dimensions keeps the
    /// mean of all its squares.
    pub struct Adafactor = "adafactor" {
        /// Learning rate: the largest step, as a share of the parameter's root mean square.
        lr: 1e-2 in NON_NEGATIVE,
        /// The decay rate of the means in update t is 1 - t^beta2_decay.
        beta2_decay: -0.8 in NON_POSITIVE,
        /// The least root of a mean square. PyTorch's default is that of its type; this is that of f32.
        eps1: 1.1920928955078125e-7 in NON_NEGATIVE,
        /// The least size of a parameter.
        eps2: 1e-3 in NON_NEGATIVE,
        /// The largest root mean square of a direction.
        d: 1.0 in POSITIVE,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-2,
    }
    formula: "b = t^beta2_decay; r, c = means of g^2 over columns and over rows, each r = (1 - b) r + b (..); v = r c / mean(r), or the mean of g^2; u = g / max(sqrt(v), eps1); theta -= min(lr, 1 / sqrt(t)) max(eps2, rms(theta)) u / max(1, rms(u) / d) + lr wd theta"
    best_for: "large models in little memory: rows + columns numbers in place of a matrix"
    family: Matrix
}

impl Adafactor {
    /// The share of what is new in the means of update `t`, and its largest step over the learning rate.
    fn rates(&self, t: u64) -> (f64, f64) {
        let t = t as f64;
        (t.powf(self.beta2_decay), if self.lr > 0.0 { (1.0 / (self.lr * t.sqrt())).min(1.0) } else { 1.0 })
    }
}

impl Rule for Adafactor {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Unfactored>() }
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        let (share, step) = self.rates(at.t);
        vec![share, self.eps1, self.eps2, self.d, step, 1.0]
    }
    /// Its means decay ever more slowly.
    fn smallest_state(&self) -> f64 {
        0.0
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        Some(self)
    }
}

impl MatrixRule for Adafactor {
    fn is_matrix(&self, _name: &str, dims: &[usize]) -> bool {
        dims.len() >= 2
    }
    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Gradient>() }
    }
    fn scalars(&self, _starts: bool) -> Vec<f64> {
        Vec::new()
    }
    fn state(&self, rows: usize, columns: usize) -> Vec<(&'static str, Vec<usize>)> {
        vec![("row_var", vec![rows, 1]), ("col_var", vec![1, columns])]
    }
    fn needs_parameters(&self) -> bool {
        true
    }
    fn transform(
        &self,
        t: u64,
        matrices: Tensor,
        parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let (_, rows, columns) = matrices.dims3()?;
        let (share, step) = self.rates(t);
        let (Ok([row, column]), Some(parameters)) = (<[Tensor; 2]>::try_from(state), parameters) else {
            bail!("adafactor: the state or the parameters are missing");
        };
        let squares = matrices.sqr()?;
        let row = weighted_sum(1.0 - share, &row, share, &squares.mean_keepdim(D::Minus1)?)?;
        let column = weighted_sum(1.0 - share, &column, share, &squares.mean_keepdim(1)?)?;
        let mean = row.mean_keepdim(1)?.maximum(self.eps1)?;
        let v = row.broadcast_div(&mean)?.broadcast_mul(&column)?;
        let u = (matrices / v.sqrt()?.maximum(self.eps1)?)?;
        let rms = |x: &Tensor| (x.sqr()?.sum_keepdim((1, 2))? / (rows * columns) as f64)?.sqrt();
        let size = rms(&parameters)?.maximum(self.eps2)?;
        let length = ((size * step)? / (rms(&u)? / self.d)?.maximum(1.0)?)?;
        Ok((Some(u.broadcast_mul(&length)?), vec![row, column]))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// The same of a parameter that is no matrix: the mean of all its squares is kept.
struct Unfactored;

impl Unfactored {
    /// The direction before its length is known, and the new mean.
    #[inline(always)]
    fn unscaled<R: Real>(share: R, eps1: R, grad: R, v: R) -> (R, R) {
        let v = v.lerp(grad * grad, share);
        (grad / v.sqrt().max(eps1), v)
    }
}

impl Elementwise for Unfactored {
    const NAME: &'static str = "adafactor";
    const SCALARS: &'static [&'static str] = &["share", "eps1", "eps2", "d", "step", "length"];
    const SLOTS: &'static [&'static str] = &["variance"];
    const SUMS: Sums = Sums { scope: Scope::Tensor, of: &[Summand::Square, Summand::Square], factors: 1 };
    type Scalars<R: Real> = [R; 6];
    type State<R: Real> = [R; 1];

    #[inline(always)]
    fn direction<R: Real>([share, eps1, .., length]: [R; 6], grad: R, _param: R, [v]: [R; 1]) -> (R, [R; 1]) {
        let (u, v) = Self::unscaled(share, eps1, grad, v);
        (length * u, [v])
    }

    /// The parameter, and the direction.
    #[inline(always)]
    fn measured<R: Real>([share, eps1, ..]: [R; 6], grad: R, param: R, [v]: [R; 1]) -> [R; MAX_SUMS] {
        let (u, _) = Self::unscaled(share, eps1, grad, v);
        [param, u, R::constant(0.0)]
    }

    /// The length of the step.
    fn factors<R: Real>([_, _, eps2, d, step, _]: [R; 6], [param, u, _]: [R; MAX_SUMS], len: R) -> [R; MAX_FACTORS] {
        let (zero, one) = (R::constant(0.0), R::constant(1.0));
        let size = (param / len).sqrt().max(eps2);
        [step * size / ((u / len).sqrt() / d).max(one), zero, zero, zero]
    }
}
