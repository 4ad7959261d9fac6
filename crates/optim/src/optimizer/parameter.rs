//! A parameter in use, with its state.

use crate::backend::kernel::Kernel;
use crate::backend::state::State;
use crate::backend::tensors::{allocate, copy, storage_address, to_dtype};
use crate::error::{Error, Result};
use crate::rule::contract::{EvaluationPoint, Rule};
use crate::rule::matrix::MatrixRule;
use candle_core::{DType, Tensor, Var};
use std::collections::HashSet;

/// A parameter in use.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub name: String,
    pub var: Var,
    pub address: usize,
    pub frozen: bool,
    /// How often it was updated: the `t` of bias corrections.
    pub updates: u64,
    /// Whose slots the state has; none before the first update.
    pub kernel: Option<&'static Kernel>,
    pub state: State,
    /// What is kept beside it where it is updated as a matrix.
    pub matrix: Option<MatrixState>,
    /// What the rule keeps on the host from update to update.
    pub numbers: Vec<f64>,
    /// The average of its values, and Lookahead's slow weights, where they are kept.
    pub average: Option<Tensor>,
    pub slow: Option<Tensor>,
}

/// The state of a parameter that is updated as a matrix.
#[derive(Debug)]
pub(crate) struct MatrixState {
    /// The formula that makes what is transformed.
    pub kernel: &'static Kernel,
    /// Its slots.
    pub slots: State,
    /// What the transformation keeps.
    pub further: Vec<Member>,
}

/// A tensor of a stack. What matrices keep that are transformed together stays together, and is not copied from update to update.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// All of them, the first dimension counting them.
    pub stack: Tensor,
    /// Which it is.
    pub at: usize,
}

impl Member {
    /// A stack of one.
    pub fn alone(tensor: &Tensor) -> candle_core::Result<Self> {
        Ok(Self { stack: tensor.unsqueeze(0)?, at: 0 })
    }

    /// A view of it.
    pub fn tensor(&self) -> candle_core::Result<Tensor> {
        self.stack.get(self.at)
    }
}

impl Parameter {
    pub fn new(name: String, var: Var) -> Result<Self> {
        let problem = |problem: String| Error::UnsuitableParameter { name: name.clone(), problem };
        let dtype = var.dtype();
        if !matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16) {
            return Err(problem(format!("its type is {dtype:?}, but must be f32, f64, bf16 or f16")));
        }
        if dtype == DType::F64 && var.device().is_metal() {
            return Err(problem("its type is F64, which Metal does not have".to_string()));
        }
        if !var.is_contiguous() {
            return Err(problem(format!("its layout is not contiguous: strides {:?}", var.stride())));
        }
        let (address, state) = (storage_address(&var), State::new(&var));
        let (average, slow) = (None, None);
        Ok(Self {
            name,
            var,
            address,
            frozen: false,
            updates: 0,
            kernel: None,
            state,
            matrix: None,
            numbers: Vec::new(),
            average,
            slow,
        })
    }

    /// Whether it has 16 bits, and may have a master copy.
    pub fn is_half(&self) -> bool {
        matches!(self.var.dtype(), DType::BF16 | DType::F16)
    }

    /// Whether stochastic rounding can do what it is asked for: nothing where there is a master copy, else not for f16.
    pub fn check_stochastic_rounding(&self, master_copies: bool) -> Result<()> {
        if self.var.dtype() != DType::F16 || master_copies {
            return Ok(());
        }
        let problem = "its type is F16, but stochastic rounding is of bf16 parameters: choose bf16, or master copies";
        Err(Error::UnsuitableParameter { name: self.name.clone(), problem: problem.to_string() })
    }

    /// Where its rule is evaluated, in the type of its state; none before its first update.
    pub fn evaluated_at(&self, point: EvaluationPoint) -> Result<Option<Tensor>> {
        let slot = self.kernel.and_then(|kernel| kernel.slots.iter().position(|slot| *slot == point.slot));
        let Some(slot) = slot else { return Ok(None) };
        let end = self.state.slot(&self.var, slot)?;
        let own = match self.state.master(&self.var)? {
            Some(master) => master,
            None => to_dtype(&self.var, end.dtype())?,
        };
        Ok(Some(allocate(|| &own + ((end - &own)? * point.weight)?)?))
    }

    /// The gradient as the backend takes it.
    pub fn prepared(&self, grad: Tensor, params: &HashSet<usize>) -> Result<Tensor> {
        let problem = |problem: String| Error::UnsuitableParameter { name: self.name.clone(), problem };
        if grad.shape() != self.var.shape() {
            let (g, p) = (grad.shape(), self.var.shape());
            return Err(problem(format!("its gradient has the shape {g:?}, but it has {p:?}")));
        }
        if !grad.device().same_device(self.var.device()) {
            let (g, p) = (grad.device().location(), self.var.device().location());
            return Err(problem(format!("its gradient is on {g:?}, but it is on {p:?}")));
        }
        let (dtype, half) = (self.var.dtype(), self.is_half());
        let grad = match grad.dtype() {
            same if same == dtype => grad,
            DType::F32 if half => grad,
            other if other.is_float() => to_dtype(&grad, if half { DType::F32 } else { dtype })?,
            other => return Err(problem(format!("its gradient has the type {other:?}"))),
        };
        let grad = if grad.is_contiguous() { grad } else { copy(&grad)? };
        // A gradient that is a parameter itself could not be read while that parameter is written.
        Ok(if params.contains(&storage_address(&grad)) { copy(&grad)? } else { grad })
    }
}

impl Parameter {
    /// Rows and columns of the parameter as a matrix.
    pub fn rows_and_columns(&self) -> (usize, usize) {
        let [rows, rest @ ..] = self.var.dims() else { return (1, 1) };
        (*rows, rest.iter().product())
    }

    /// What the rule does with it as a matrix, where it is one.
    pub fn as_matrix<'r, R: Rule>(&self, rule: &'r R) -> Option<&'r dyn MatrixRule> {
        rule.matrix().filter(|matrix| self.var.elem_count() > 0 && matrix.is_matrix(&self.name, self.var.dims()))
    }

    /// Its values: those of the master copy, where that has some.
    pub fn exact_values(&self) -> candle_core::Result<Tensor> {
        let master = if self.updates > 0 { self.state.master(&self.var)? } else { None };
        Ok(master.unwrap_or_else(|| self.var.as_tensor().detach()))
    }

    /// The type that it is computed in.
    pub fn compute_dtype(&self) -> DType {
        if self.var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
    }
}
