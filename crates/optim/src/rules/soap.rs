use super::adamw::AdamW;
use super::gradient::Gradient;
use crate::backend::kernel::Kernel;
use crate::matrix::decompose::{eigenvectors, qr};
use crate::matrix::elementwise::weighted_sum;
use crate::matrix::product::{Factor, Product};
use crate::rule::contract::{Rule, as_declared};
use crate::rule::{declare::hyperparameters, matrix::MatrixRule, progress::Progress, value::Range};
use candle_core::{DType, Device, Result, Tensor};
use std::ops::Bound;

/// A count, in a float.
pub(crate) const COUNT: Range = Range::new(Bound::Included(1.0), Bound::Excluded(1e15), "a number from 1 to 1e15");

hyperparameters! {
    /// SOAP: Adam in the eigenvectors of Shampoo's matrices (Vyas et al. 2024, arXiv:2409.11321).
    ///
    /// A matrix is a parameter of two or more dimensions, the first by all others. Its first update fills the state and moves nothing.
    /// What has fewer dimensions is updated as by Adam, from its second update on too.
    pub struct Soap = "soap" {
        /// Learning rate.
        lr: 3e-3 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.95 in FRACTION,
        /// Decay rate of the mean of its square.
        beta2: 0.95 in FRACTION,
        /// Decay rate of the means of g g^T and g^T g.
        shampoo_beta: 0.95 in FRACTION,
        /// Keeps the division finite.
        eps: 1e-8 in NON_NEGATIVE,
        /// Decoupled weight decay, after the step.
        weight_decay: 0.01 in NON_NEGATIVE around 3e-2,
        /// Updates from one renewal of the eigenvectors to the next.
        precondition_frequency: 10.0 in COUNT,
        /// A longer side of a matrix keeps the identity in place of eigenvectors.
        max_precondition_dim: 10000.0 in NON_NEGATIVE,
    }
    formula: "L = mean of g g^T, R = mean of g^T g; P and Q their eigenvectors; h = P^T g Q; m = beta1 m + (1 - beta1) h; v = beta2 v + (1 - beta2) h^2; theta -= lr sqrt(1 - beta2^(t-1)) / (1 - beta1^(t-1)) P (m / (sqrt(v) + eps)) Q^T; theta *= 1 - lr wd"
    best_for: "fewer updates than AdamW, for more time and memory per update"
    family: Matrix
}

impl Soap {
    /// What the mean over the root of the mean square is multiplied by in update `t`: corrected as if the first had not been; and what
    /// decay after the step does to the step.
    fn scale(&self, t: u64) -> f64 {
        let k = (t - 1) as f64;
        (1.0 - self.beta2.powf(k)).sqrt() / (1.0 - self.beta1.powf(k)) * (1.0 - self.lr * self.weight_decay)
    }

    /// Whether a side of this length has eigenvectors.
    fn has_vectors(&self, side: usize) -> bool {
        side as f64 <= self.max_precondition_dim
    }
}

impl Rule for Soap {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<AdamW>() }
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        if at.t == 1 {
            return vec![0.0, 1.0, 0.0, 1.0, 1.0, 1.0];
        }
        vec![1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps, self.scale(at.t), 1.0]
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        if at.t == 1 { 0.0 } else { self.lr }
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        Some(self)
    }
}

/// The means and eigenvectors of one side of a stack of matrices.
struct Side {
    mean: Tensor,
    vectors: Tensor,
}

impl MatrixRule for Soap {
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
        let mut state = vec![("exp_avg", vec![rows, columns]), ("exp_avg_sq", vec![rows, columns])];
        for (side, [mean, vectors]) in [(rows, ["left_mean", "left_vectors"]), (columns, ["right_mean", "right_vectors"])] {
            if self.has_vectors(side) {
                state.extend([(mean, vec![side, side]), (vectors, vec![side, side])]);
            }
        }
        state
    }
    fn transform(
        &self,
        t: u64,
        matrices: Tensor,
        _parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)> {
        let (_, rows, columns) = matrices.dims3()?;
        let mut state = state.into_iter();
        let mut next = || state.next().ok_or_else(|| candle_core::Error::Msg("soap: state is missing".into()));
        let (mut m, mut v) = (next()?, next()?);
        let mut side = |length: usize| {
            self.has_vectors(length).then(|| Ok::<_, candle_core::Error>(Side { mean: next()?, vectors: next()? })).transpose()
        };
        let (mut left, mut right) = (side(rows)?, side(columns)?);
        let mut directions = None;
        if t > 1 {
            let h = rotated(&matrices, left.as_ref().map(|side| &side.vectors), right.as_ref().map(|side| &side.vectors), true)?;
            m = weighted_sum(self.beta1, &m, 1.0 - self.beta1, &h)?;
            v = weighted_sum(self.beta2, &v, 1.0 - self.beta2, &h.sqr()?)?;
            let u = ((&m * self.scale(t))? / (v.sqrt()? + self.eps)?)?;
            directions = Some(rotated(&u, left.as_ref().map(|side| &side.vectors), right.as_ref().map(|side| &side.vectors), false)?);
        }
        let share = 1.0 - self.shampoo_beta;
        let gram = |side: &Side, a: Factor<'_>, b: Factor<'_>| {
            Product::of(a, b).times(share).plus(self.shampoo_beta, &side.mean).symmetric().compute()
        };
        let (plain, turned) = (Factor::from(&matrices), Factor::transposed(&matrices));
        if let Some(left) = &mut left {
            left.mean = gram(left, plain, turned)?;
        }
        if let Some(right) = &mut right {
            right.mean = gram(right, turned, plain)?;
        }
        let is_renewed = (t - 1).is_multiple_of(self.precondition_frequency as u64);
        for (is_left, side) in [(true, &mut left), (false, &mut right)] {
            let Some(side) = side else { continue };
            if t == 1 {
                side.vectors = eigenvectors(&side.mean)?;
            } else if is_renewed {
                let (order, vectors) = renewed(side)?;
                let turn = Product::of(Factor::transposed(&vectors), &side.vectors).compute()?;
                let product = if is_left { Product::of(&turn, &m) } else { Product::of(&m, Factor::transposed(&turn)) };
                m = product.compute()?;
                let dim = if is_left { 1 } else { 2 };
                let order = if is_left { order.unsqueeze(2)? } else { order.unsqueeze(1)? };
                v = v.gather(&order.broadcast_as(v.shape())?.contiguous()?, dim)?;
                side.vectors = vectors;
            }
        }
        let sides = [left, right].into_iter().flatten().flat_map(|side| [side.mean, side.vectors]);
        Ok((directions, [m, v].into_iter().chain(sides).collect()))
    }
    fn step_size(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
}

/// `P^T X Q`, or back: `P X Q^T`. Without eigenvectors a side stays as it is.
fn rotated(x: &Tensor, left: Option<&Tensor>, right: Option<&Tensor>, is_forward: bool) -> Result<Tensor> {
    let mut x = x.clone();
    if let Some(vectors) = left {
        let vectors = if is_forward { Factor::transposed(vectors) } else { Factor::from(vectors) };
        x = Product::of(vectors, &x).compute()?;
    }
    if let Some(vectors) = right {
        let vectors = if is_forward { Factor::from(vectors) } else { Factor::transposed(vectors) };
        x = Product::of(&x, vectors).compute()?;
    }
    Ok(x)
}

/// One power iteration from the present eigenvectors: the order that brings them by descending eigenvalues `[n, side]`, and the new
/// ones.
fn renewed(side: &Side) -> Result<(Tensor, Tensor)> {
    let power = Product::of(&side.mean, &side.vectors).compute()?;
    let values = (&side.vectors * &power)?.sum(1)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let length = values.first().map_or(0, Vec::len);
    let order = values.iter().flat_map(|values| {
        let mut order: Vec<u32> = (0..length as u32).collect();
        order.sort_by(|a, b| values[*b as usize].total_cmp(&values[*a as usize]));
        order
    });
    let order = Tensor::from_iter(order, &Device::Cpu)?.reshape((values.len(), length))?.to_device(power.device())?;
    let columns = order.unsqueeze(1)?.broadcast_as(power.shape())?.contiguous()?;
    let vectors = qr(&power.gather(&columns, 2)?)?;
    Ok((order, vectors))
}
