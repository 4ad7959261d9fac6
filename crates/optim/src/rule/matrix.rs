//! Rules on whole matrices.

use crate::backend::kernel::Kernel;
use crate::formula::{elementwise::Elementwise, real::Real};
use candle_core::{Result, Tensor};

/// What a rule does with whole matrices. Parameters that are no matrices are updated by the rule's formula.
///
/// A matrix is a parameter of two or more dimensions: its first dimension by all others, so that a convolution's kernel is out x (in
/// kh kw). Its update is in three parts.
///
/// 1. A formula, [`kernel`](Self::kernel), goes over the elements of gradient and slots. It gives what is to be transformed.
/// 2. [`transform`](Self::transform) makes the direction from it, by products of matrices.
/// 3. The parameter moves: `theta -= step_size (direction + weight_decay theta)`.
///
/// The first and the last part are passes of the fused kernels. Matrices of equal shape that were updated equally often are
/// transformed together, as a stack.
pub trait MatrixRule {
    /// Whether a parameter is updated as a matrix: by default as [`is_hidden_matrix`].
    fn is_matrix(&self, name: &str, dims: &[usize]) -> bool {
        is_hidden_matrix(name, dims)
    }
    /// The formula of the first part. It [gives the parameter](crate::rule::Gives::Parameter), which here is what is transformed.
    fn kernel(&self) -> &'static Kernel;
    /// Its scalars. `starts`: in a matrix's first update.
    fn scalars(&self, starts: bool) -> Vec<f64>;
    /// As [`Rule::smallest_state`](crate::Rule::smallest_state), of the formula's slots.
    fn smallest_state(&self) -> f64 {
        0.0
    }
    /// What is kept of a matrix beside the formula's slots: names, each with its dimensions.
    fn state(&self, rows: usize, columns: usize) -> Vec<(&'static str, Vec<usize>)>;
    /// Whether [`transform`](Self::transform) sees the parameters.
    fn needs_parameters(&self) -> bool {
        false
    }
    /// The directions of a stack of matrices, n x rows x columns, in f32 or f64. `t` counts their updates from 1. `parameters` is the
    /// stack of what is updated, where the rule [needs](Self::needs_parameters) it. `state` has the
    /// tensors that [`state`](Self::state) names, each with n in front; zeros at first. Returns the directions, or none where this
    /// update only fills the state, and the new state.
    ///
    /// # Errors
    /// The device fails.
    fn transform(
        &self,
        t: u64,
        matrices: Tensor,
        parameters: Option<Tensor>,
        state: Vec<Tensor>,
    ) -> Result<(Option<Tensor>, Vec<Tensor>)>;
    /// What direction and decay are multiplied by.
    fn step_size(&self) -> f64;
    /// The decoupled weight decay of matrices.
    fn weight_decay(&self) -> f64;
}

/// The parts of names that say that a layer is the first or the last of a model: an embedding, or a head.
pub const OUTER_LAYERS: &[&str] =
    &["embed", "emb", "wte", "wpe", "head", "lm_head", "classifier", "unembed", "output", "logits"];

/// Whether a parameter is a matrix within a model: two or more dimensions, of which neither the first nor all others together have
/// the length 1, and a name none of whose parts says embedding or head ([`OUTER_LAYERS`]). A part of a name is what dots separate; it
/// says embedding where it begins with `embed`.
///
/// ```
/// use optim::rule::is_hidden_matrix;
/// assert!(is_hidden_matrix("block.0.attention.qkv.weight", &[384, 128]));
/// assert!(is_hidden_matrix("layer1.conv.weight", &[64, 3, 3, 3]));
/// assert!(!is_hidden_matrix("embedding.token", &[65, 128]));
/// assert!(!is_hidden_matrix("lm_head.weight", &[65, 128]));
/// assert!(!is_hidden_matrix("block.0.norm.weight", &[128]));
/// ```
pub fn is_hidden_matrix(name: &str, dims: &[usize]) -> bool {
    let is_outer = |part: &str| part.starts_with("embed") || OUTER_LAYERS.contains(&part);
    let [rows, rest @ ..] = dims else { return false };
    let columns: usize = rest.iter().product();
    !rest.is_empty() && *rows > 1 && columns > 1 && !name.split('.').any(|part| is_outer(&part.to_lowercase()))
}

/// The last part of a matrix's update: the gradient is the direction.
pub(crate) struct Step;

impl Elementwise for Step {
    const NAME: &'static str = "step";
    const SCALARS: &'static [&'static str] = &[];
    const SLOTS: &'static [&'static str] = &[];
    type Scalars<R: Real> = [R; 0];
    type State<R: Real> = [R; 0];

    #[inline(always)]
    fn direction<R: Real>([]: [R; 0], grad: R, _param: R, []: [R; 0]) -> (R, [R; 0]) {
        (grad, [])
    }
}

/// The kernel of [`Step`].
pub(crate) const STEP: &Kernel = &Kernel::of::<Step>();
