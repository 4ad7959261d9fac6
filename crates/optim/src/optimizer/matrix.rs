//! The parts of a step that are of whole matrices: the formula that makes what is transformed, and the transformation.
//!
//! Both work on copies, and the new state is taken over when the step has succeeded.

use super::fused::FusedOptimizer;
use super::parameter::{MatrixState, Member};
use crate::backend::cpu::numbers::StepNumbers;
use crate::backend::state::State;
use crate::backend::step::{self, Made};
use crate::backend::tensors::{allocate, is_gpu, to_dtype};
use crate::backend::update::{Norm, Update};
use crate::error::Result;
use crate::rule::contract::Rule;
use crate::rule::matrix::MatrixRule;
use candle_core::{DType, Tensor, Var};
use std::collections::BTreeMap;

/// Updates of a parameter between two at which tiny numbers of its state are dropped, for which the CPU takes a pass of its own.
pub(super) const TINY_EVERY: u64 = 32;

/// What is the same for all groups.
pub(super) struct Common {
    pub grad_scale: f64,
    pub clip_value: f64,
    pub stochastic_rounding: Option<u64>,
}

/// What a matrix is to be updated with.
pub(super) struct Transformed {
    /// None where the update only fills the state.
    pub direction: Option<Tensor>,
    pub state: MatrixState,
}

/// A matrix whose update has begun.
struct Begun<'a> {
    /// What the first part gives, on a GPU.
    scratch: Option<Var>,
    grad: Tensor,
    /// A copy.
    state: MatrixState,
    matrix: &'a dyn MatrixRule,
    theta: Option<Tensor>,
    starts: bool,
    maximize: bool,
    cautious: bool,
    drops_tiny: bool,
}

impl Begun<'_> {
    /// The direction where it agrees in sign with the gradient, over the share of its elements that do.
    fn cautious(&self, direction: &Tensor) -> Result<Tensor> {
        let sign = if self.maximize { -1.0 } else { 1.0 };
        let agrees = ((direction * &self.grad)? * sign)?.gt(0.0)?.to_dtype(direction.dtype())?;
        let share = agrees.mean_all()?.maximum(1e-3)?;
        // A product, so that NaN stays.
        Ok((direction * agrees.broadcast_div(&share)?)?)
    }

    /// Those of the first part.
    fn numbers(&self, common: &Common) -> StepNumbers<f64> {
        StepNumbers {
            lr: 0.0,
            weight_decay: 0.0,
            grad_scale: if self.maximize { -common.grad_scale } else { common.grad_scale },
            clip_value: common.clip_value,
            smallest_state: if self.drops_tiny { self.matrix.smallest_state() } else { 0.0 },
            cautious: false,
            mask_scale: 1.0,
            cautious_decay: false,
        }
    }
}

/// Matrices that are transformed together: those of a group, of a shape, a type and a count of updates.
type Stacks = BTreeMap<(usize, usize, usize, bool, u64), Vec<usize>>;

impl<R: Rule + Clone> FusedOptimizer<R> {
    /// The directions of all matrices that have a gradient, by the index of the parameter; their gradients are taken.
    pub(super) fn transform_matrices(
        &mut self,
        rules: &[R],
        grads: &mut [Option<Tensor>],
        common: &Common,
        norm: Option<&Norm>,
    ) -> Result<BTreeMap<usize, Transformed>> {
        let groups = self.groups.iter().zip(rules).enumerate();
        let params = groups.flat_map(|(group, (active, rule))| active.params.iter().map(move |p| (group, rule, p)));
        let mut stacks = Stacks::new();
        let mut begun = BTreeMap::new();
        for (index, (group, rule, parameter)) in params.enumerate() {
            let Some(matrix) = parameter.as_matrix(rule) else { continue };
            let Some(grad) = grads[index].take() else { continue };
            let (dtype, (rows, columns)) = (parameter.compute_dtype(), parameter.rows_and_columns());
            let grad = if grad.dtype() == dtype { grad } else { to_dtype(&grad, dtype)? };
            let zeros = |dims: &[usize]| allocate(|| Tensor::zeros(dims, dtype, grad.device()));
            let scratch = || Var::from_tensor(&zeros(parameter.var.dims())?);
            let scratch = is_gpu(grad.device()).then(scratch).transpose()?;
            let (kernel, old) = (matrix.kernel(), parameter.matrix.as_ref());
            let spare = self.spare_slots.remove(&index).zip(old).and_then(|(mut spare, old)| {
                (old.kernel.slots == kernel.slots && spare.copy_slots(&old.slots)).then_some(spare)
            });
            let slots = match (spare, old) {
                (Some(copy), _) => copy,
                (None, Some(old)) => old.slots.refit(&parameter.var, old.kernel.slots, kernel.slots, false)?,
                (None, None) => State::new(&parameter.var).refit(&parameter.var, &[], kernel.slots, false)?,
            };
            let shapes = matrix.state(rows, columns);
            let further = match old {
                Some(old) if old.further.len() == shapes.len() => old.further.clone(),
                _ => shapes.iter().map(|(_, dims)| Member::alone(&zeros(dims)?)).collect::<Result<_, _>>()?,
            };
            stacks.entry((group, rows, columns, dtype == DType::F64, parameter.updates + 1)).or_default().push(index);
            let theta = || parameter.exact_values()?.to_dtype(dtype)?.reshape((rows, columns));
            let begin = Begun {
                scratch,
                grad,
                state: MatrixState { kernel, slots, further },
                matrix,
                theta: matrix.needs_parameters().then(theta).transpose()?,
                starts: old.is_none(),
                maximize: rule.options().maximize,
                cautious: rule.options().cautious,
                drops_tiny: (parameter.updates + 1).is_multiple_of(TINY_EVERY) && dtype != DType::F64,
            };
            begun.insert(index, begin);
        }
        if begun.is_empty() {
            return Ok(BTreeMap::new());
        }
        let on_gpu = begun.values_mut().filter_map(|begun| {
            let (numbers, kernel) = (begun.numbers(common), begun.state.kernel);
            let (scalars, grad) = (begun.matrix.scalars(begun.starts), begun.grad.clone());
            let (param, state) = (begun.scratch.as_ref()?, &mut begun.state.slots);
            Some(Update { param, grad, state, kernel, scalars, numbers, by_norm: true, noise: None })
        });
        step::step(&mut self.first_tables, &mut self.kept, on_gpu.collect(), norm, || Ok(()))?;

        let mut transformed = BTreeMap::new();
        for ((_, rows, columns, _, t), indices) in stacks {
            let mut stack: Vec<_> = indices.iter().filter_map(|index| begun.remove(index)).collect();
            let on_gpu: Vec<&Tensor> = stack.iter().filter_map(|begun| begun.scratch.as_deref()).collect();
            let matrices = if on_gpu.is_empty() {
                let made = stack.iter_mut().map(|begun| Made {
                    numbers: begun.numbers(common),
                    kernel: begun.state.kernel,
                    scalars: begun.matrix.scalars(begun.starts),
                    grad: &begun.grad,
                    state: &mut begun.state.slots,
                });
                step::stack_on_cpu(made.collect(), rows, columns)?
            } else {
                let reshaped = on_gpu.iter().map(|scratch| scratch.reshape((rows, columns)));
                stacked(&reshaped.collect::<Result<Vec<_>, _>>()?)?
            };
            let Some(Begun { matrix, .. }) = stack.first() else { continue };
            let theta: Vec<Tensor> = stack.iter().filter_map(|begun| begun.theta.clone()).collect();
            let theta = matrix.needs_parameters().then(|| stacked(&theta)).transpose()?;
            let count = stack.iter().map(|begun| begun.state.further.len()).max().unwrap_or(0);
            let kept =
                |k: usize| together(&stack.iter().map(|begun| begun.state.further[k].clone()).collect::<Vec<_>>());
            let kept = (0..count).map(kept).collect::<Result<_>>()?;
            let (directions, kept) = matrix.transform(t, matrices, theta, kept)?;
            for (at, (index, begun)) in indices.into_iter().zip(stack).enumerate() {
                let shape = begun.grad.shape();
                let direction = directions.as_ref().map(|all| all.get(at)?.contiguous()?.reshape(shape)).transpose()?;
                let direction = match direction {
                    Some(direction) if begun.cautious => Some(begun.cautious(&direction)?),
                    other => other,
                };
                let further = kept.iter().map(|stack| Member { stack: stack.clone(), at }).collect();
                let state = MatrixState { further, ..begun.state };
                transformed.insert(index, Transformed { direction, state });
            }
        }
        Ok(transformed)
    }
}

/// Tensors of one shape, one behind another.
fn stacked(tensors: &[Tensor]) -> Result<Tensor> {
    Ok(match tensors {
        [one] => one.unsqueeze(0)?,
        all => allocate(|| Tensor::stack(all, 0))?,
    })
}

/// The same of tensors that may be in one stack already.
fn together(members: &[Member]) -> Result<Tensor> {
    if let [Member { stack, .. }, ..] = members {
        let is_in_place = |(at, member): (usize, &Member)| member.at == at && member.stack.id() == stack.id();
        if stack.dim(0)? == members.len() && members.iter().enumerate().all(is_in_place) {
            return Ok(stack.clone());
        }
    }
    stacked(&members.iter().map(Member::tensor).collect::<Result<Vec<_>, _>>()?)
}
