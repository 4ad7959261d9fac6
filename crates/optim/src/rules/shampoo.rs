use super::gradient::Gradient;
use super::soap::COUNT;
use crate::backend::kernel::Kernel;
use crate::formula::{elementwise::Elementwise, real::Real};
use crate::matrix::decompose::inverse_root;
use crate::matrix::elementwise::weighted_sum;
use crate::matrix::product::{Factor, Product};
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule, progress::Progress};
use candle_core::{Result, Tensor, bail};

hyperparameters! {
    /// Shampoo: the gradient of a matrix between roots of its covariances (Gupta et al. 2018, arXiv:1802.09568), each step as long as
    /// that of a simpler rule (Anil et al. 2020, arXiv:2002.09018).
    ///
    /// A matrix is a parameter of two or more dimensions, the first by all others. One with a side longer than `block_size` is cut into
    /// blocks of equal sides, each with covariances of its own. Parameters with fewer dimensions move as the simpler rule has it.
    pub struct Shampoo = "shampoo" {
        /// Learning rate.
        lr: 1e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the direction.
        beta1: 0.9 in FRACTION,
        /// Decay rate of the means of g g^T, g^T g and g^2.
        beta2: 0.999 in FRACTION,
        /// Keeps the division of grafting finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Added to the eigenvalues of a covariance, as a share of the largest.
        matrix_eps: 1e-6 in OPEN_FRACTION,
        /// Decoupled weight decay.
        weight_decay: 0.0 in NON_NEGATIVE around 1e-4,
        /// The rule whose length a step has: g / (sqrt(v) + eps), or g; or its own length.
        grafting: "adam" of ["adam", "sgd", "none"],
        /// Updates from one computation of the roots to the next.
        precondition_frequency: 10.0 in COUNT,
        /// The longest side of a block.
        block_size: 512.0 in COUNT,
    }
    formula: "L = mean of g g^T, R = mean of g^T g, v = mean of g^2, each over 1 - beta2^t; a = g / (sqrt(v) + eps) with adam, or g; d = L^(-1/4) g R^(-1/4); d *= norm(a) / norm(d); m = beta1 m + (1 - beta1) d; theta -= lr (m / (1 - beta1^t) + wd theta)"
    best_for: "fewer updates than Adam, for more time and memory per update"
    family: Matrix
}

impl Rule for Shampoo {
    as_declared!();
    fn usual(&self, key: &str) -> Option<f64> {
        if key == "lr" && self.grafting == "sgd" { Some(1e-1) } else { self.spec().usual(key) }
    }

    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<Grafted>() }
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        let corrected = |beta: f64| 1.0 / (1.0 - beta.powf(at.t as f64));
        let is_plain = if self.grafting == "adam" { 0.0 } else { 1.0 };
        let (a, b) = (1.0 - self.beta1, 1.0 - self.beta2);
        vec![a, self.beta2, b, self.eps, corrected(self.beta1), corrected(self.beta2), is_plain]
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        Some(self)
    }
}

/// A side of a matrix in blocks: how many, and how long each is. The last is filled up with zeros, which change nothing.
struct Side {
    blocks: usize,
    length: usize,
}

impl Shampoo {
    fn side(&self, length: usize) -> Side {
        let blocks = length.div_ceil(self.block_size as usize).max(1);
        Side { blocks, length: length.div_ceil(blocks) }
    }
}

impl MatrixRule for Shampoo {
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
        let (left, right) = (self.side(rows), self.side(columns));
        let square = |side: &Side| vec![left.blocks * right.blocks, side.length, side.length];
        vec![
            ("exp_avg", vec![rows, columns]),
            ("exp_avg_sq", vec![rows, columns]),
            ("left_mean", square(&left)),
            ("right_mean", square(&right)),
            ("left_root", square(&left)),
            ("right_root", square(&right)),
        ]
    }
    fn transform(
        &self,
        t: u64,
        matrices: Tensor,
        _parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let (count, rows, columns) = matrices.dims3()?;
        let Ok([m, v, left, right, left_root, right_root]) = <[Tensor; 6]>::try_from(state) else {
            bail!("shampoo: tensors of state are missing");
        };
        let corrected = |beta: f64| 1.0 - beta.powf(t as f64);
        let (rows_in, columns_in) = (self.side(rows), self.side(columns));
        let g = blocks(&matrices, &rows_in, &columns_in)?;
        // All blocks of all matrices as one stack, and back.
        let flat = |stack: Tensor| {
            let (_, _, side, _) = stack.dims4()?;
            stack.reshape((count * rows_in.blocks * columns_in.blocks, side, side))
        };
        let mean = |mean: Tensor, a: Factor<'_>, b: Factor<'_>| -> Result<Tensor> {
            let product = Product::of(a, b).times(1.0 - self.beta2);
            Ok(product.plus(self.beta2, &flat(mean)?).symmetric().compute()?)
        };
        let left = mean(left, Factor::from(&g), Factor::transposed(&g))?;
        let right = mean(right, Factor::transposed(&g), Factor::from(&g))?;
        let (mut left_root, mut right_root) = (flat(left_root)?, flat(right_root)?);
        if (t - 1).is_multiple_of(self.precondition_frequency as u64) {
            let root = |mean: &Tensor| inverse_root(&(mean * (1.0 / corrected(self.beta2)))?, 4.0, self.matrix_eps);
            (left_root, right_root) = (root(&left)?, root(&right)?);
        }
        let d = Product::of(&Product::of(&left_root, &g).compute()?, &right_root).compute()?;
        let d = matrices_of(&d, count, rows, columns, &rows_in, &columns_in)?;

        let v = weighted_sum(self.beta2, &v, 1.0 - self.beta2, &matrices.sqr()?)?;
        let norm = |x: &Tensor| x.sqr()?.sum_keepdim((1, 2))?.sqrt();
        let length = match self.grafting {
            "adam" => Some(norm(&(&matrices / ((&v * (1.0 / corrected(self.beta2)))?.sqrt()? + self.eps)?)?)?),
            "sgd" => Some(norm(&matrices)?),
            _ => None,
        };
        let d = match length {
            // Where the gradient is 0, so are both lengths.
            Some(length) => d.broadcast_mul(&(length / (norm(&d)? + 1e-30)?)?)?,
            None => d,
        };
        let m = weighted_sum(self.beta1, &m, 1.0 - self.beta1, &d)?;
        let own = |stack: &Tensor| {
            let (all, side, _) = stack.dims3()?;
            stack.reshape((count, all / count, side, side))
        };
        let directions = (&m * (1.0 / corrected(self.beta1)))?;
        let state = vec![m, v, own(&left)?, own(&right)?, own(&left_root)?, own(&right_root)?];
        Ok((Some(directions), state))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// The blocks of all matrices of a stack, block row after block row.
fn blocks(stack: &Tensor, rows: &Side, columns: &Side) -> Result<Tensor> {
    let (count, height, width) = stack.dims3()?;
    if rows.blocks * columns.blocks == 1 {
        return Ok(stack.clone());
    }
    let whole = stack
        .pad_with_zeros(1, 0, rows.blocks * rows.length - height)?
        .pad_with_zeros(2, 0, columns.blocks * columns.length - width)?;
    let apart = whole.reshape((count, rows.blocks, rows.length, columns.blocks, columns.length))?;
    apart.transpose(2, 3)?.contiguous()?.reshape((count * rows.blocks * columns.blocks, rows.length, columns.length))
}

/// The matrices of such blocks.
fn matrices_of(blocks: &Tensor, count: usize, height: usize, width: usize, rows: &Side, columns: &Side) -> Result<Tensor> {
    if rows.blocks * columns.blocks == 1 {
        return Ok(blocks.clone());
    }
    let apart = blocks.reshape((count, rows.blocks, columns.blocks, rows.length, columns.length))?.transpose(2, 3)?;
    let whole = apart.contiguous()?.reshape((count, rows.blocks * rows.length, columns.blocks * columns.length))?;
    whole.narrow(1, 0, height)?.narrow(2, 0, width)?.contiguous()
}

/// The simpler rule, of parameters that are no matrices.
struct Grafted;

impl Elementwise for Grafted {
    const NAME: &'static str = "shampoo_grafted";
    const SCALARS: &'static [&'static str] =
        &["one_minus_beta1", "beta2", "one_minus_beta2", "eps", "m_scale", "v_scale", "is_plain"];
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    type Scalars<R: Real> = [R; 7];
    type State<R: Real> = [R; 2];

    #[inline(always)]
    fn direction<R: Real>(
        [one_minus_beta1, beta2, one_minus_beta2, eps, m_scale, v_scale, is_plain]: [R; 7],
        grad: R,
        _param: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let v = beta2 * v + one_minus_beta2 * (grad * grad);
        let u = is_plain.select_positive(grad, grad / ((v * v_scale).sqrt() + eps));
        let m = m.lerp(u, one_minus_beta1);
        (m * m_scale, [m, v])
    }
}
